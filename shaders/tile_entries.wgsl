// The first half of a dense pass whose contracted dimension K is large: a, b and the losses of every
// entry of a part of the data (an SDDMM over all entries). a and b go to memory, where tile_sums.wgsl
// finds them.
//
// A workgroup computes an output tile of 4 EDGE rows by 4 EDGE columns, each thread 4 by 4 entries of
// it, with the rows of R and the columns of C in workgroup memory DEPTH contracted indices at a time.
//
// Words after a dollar sign are filled in for each plan.

const EDGE = $edge;
const THREADS = EDGE * EDGE;
const TILE = 4u * EDGE;
const DEPTH = 16u;
const K = $k;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, $uniforms>;
@group(0) @binding(1) var<storage, read> tensors: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
$bindings

// Where an index is, in the data and in the tensors that have it.
$offsets

var<workgroup> rows: array<vec4<f32>, DEPTH * EDGE>;
var<workgroup> columns: array<vec4<f32>, DEPTH * EDGE>;
var<workgroup> row_offsets: array<Offsets, TILE>;
var<workgroup> column_offsets: array<Offsets, TILE>;
{{if losses}}
var<workgroup> loss_sums: array<vec3<f32>, THREADS>;
{{end}}

$products

// An entry of the data.
$entry

// a, b and the loss, as far as they are wanted.
$entry_terms

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.y * $fold + group.x;
    if block >= $block_count {
        return;
    }
    let outer = block / ($row_blocks * $column_blocks);
    let inner = block % ($row_blocks * $column_blocks);
    let batch = batch_at(outer / $reduced_count);
    let reduced = reduced_at(outer % $reduced_count);
    let first_row = (inner / $column_blocks) * TILE;
    let first_column = (inner % $column_blocks) * TILE;
    for (var i = thread; i < TILE; i += THREADS) {
        row_offsets[i] = row_at(min(first_row + i, $row_count - 1u));
        column_offsets[i] = column_at(min(first_column + i, $column_count - 1u));
    }
    // The thread's predictions: neighbours lie side by side in memory.
    let row = 4u * $row_of_thread;
    let column = 4u * $column_of_thread;
    var predictions: array<vec4<f32>, 4>;
    for (var start = 0u; start < K; start += DEPTH) {
        workgroupBarrier();
        for (var i = thread; i < DEPTH * EDGE; i += THREADS) {
            let k = start + i / EDGE;
            let near = 4u * (i % EDGE);
            var r = vec4<f32>();
            var c = vec4<f32>();
            if k < K {
                r = vec4<f32>(
                    row_product(batch, reduced, row_offsets[near], k),
                    row_product(batch, reduced, row_offsets[near + 1u], k),
                    row_product(batch, reduced, row_offsets[near + 2u], k),
                    row_product(batch, reduced, row_offsets[near + 3u], k),
                );
                c = vec4<f32>(
                    column_product(batch, reduced, column_offsets[near], k),
                    column_product(batch, reduced, column_offsets[near + 1u], k),
                    column_product(batch, reduced, column_offsets[near + 2u], k),
                    column_product(batch, reduced, column_offsets[near + 3u], k),
                );
            }
            rows[i] = r;
            columns[i] = c;
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let r = rows[k * EDGE + row / 4u];
            let c = columns[k * EDGE + column / 4u];
            predictions[0] = fma(vec4<f32>(r.x), c, predictions[0]);
            predictions[1] = fma(vec4<f32>(r.y), c, predictions[1]);
            predictions[2] = fma(vec4<f32>(r.z), c, predictions[2]);
            predictions[3] = fma(vec4<f32>(r.w), c, predictions[3]);
        }
    }
    {{if losses}}
    var loss = vec3<f32>();
    {{end}}
    $each_entry
    {{if losses}}
    {{include reduce_losses}}
    {{end}}
}
