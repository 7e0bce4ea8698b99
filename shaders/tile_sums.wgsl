// The second half of a dense pass whose contracted dimension K is large: numerator and denominator
// from the a and b that tile_entries.wgsl wrote (an MTTKRP).
//
// A workgroup sums 4 EDGE rows by 4 EDGE contracted indices over a split of the reduction (reduced
// batch indices and columns), each thread 4 by 4 of them, DEPTH columns at a time.
//
// Words after a dollar sign are filled in for each plan.

const EDGE = $edge;
const THREADS = EDGE * EDGE;
const TILE = 4u * EDGE;
const DEPTH = 16u;
const K = $k;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, $uniforms>;
@group(0) @binding(1) var<storage, read> tensors: array<f32>;
$bindings

// Where an index is in the tensors that have it.
$offsets

{{if numerator}}
var<workgroup> tile_a: array<vec4<f32>, DEPTH * EDGE>;
{{end}}
{{if denominator}}
var<workgroup> tile_b: array<vec4<f32>, DEPTH * EDGE>;
{{end}}
var<workgroup> columns: array<vec4<f32>, DEPTH * EDGE>;

$products

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.y * $fold + group.x;
    if block >= $block_count {
        return;
    }
    const K_BLOCKS = (K + TILE - 1u) / TILE;
    let first_k = (block % K_BLOCKS) * TILE;
    let first_row = (block / K_BLOCKS % $row_blocks) * TILE;
    let batch_index = block / K_BLOCKS / $row_blocks;
    let batch = batch_at(batch_index);
    let row = 4u * (thread % EDGE);
    let k = 4u * (thread / EDGE);
    let first = group.z * $split_units;
    let end = min(first + $split_units, $reduced_count * $column_blocks);
    let place = ((group.z * $batch_count + batch_index) * K + first_k + k) * $row_count + first_row + row;
    {{if numerator}}
    var n: array<vec4<f32>, 4>;
    {{end}}
    {{if denominator}}
    var d: array<vec4<f32>, 4>;
    {{end}}
    {{if moving}}
    // Every sum is still zero here: this writes zeros.
    $store_zeros
    {{end}}
    for (var unit = first; unit < end; unit++) {
        let reduced_index = unit / $column_blocks;
        let reduced = reduced_at(reduced_index);
        let start = (unit % $column_blocks) * DEPTH;
        {{if moving}}
        if unit != first && unit % $column_blocks == 0u {
            let before = reduced_at(reduced_index - 1u);
            $store_sums
            {{if numerator}}
            n = array<vec4<f32>, 4>();
            {{end}}
            {{if denominator}}
            d = array<vec4<f32>, 4>();
            {{end}}
        }
        {{end}}
        let begin = ((batch_index * $reduced_count + reduced_index) * $column_count + start) * $row_count;
        workgroupBarrier();
        for (var i = thread; i < DEPTH * EDGE; i += THREADS) {
            let depth = i / EDGE;
            let near = 4u * (i % EDGE);
            let there = start + depth < $column_count;
            let at = begin + depth * $row_count + first_row + near;
            let left = select(0u, $row_count - min(first_row + near, $row_count), there);
            $load_entries
            var c = vec4<f32>();
            if there {
                let column = column_at(start + depth);
                c = column_vector(batch, reduced, column, first_k + near);
            }
            columns[i] = c;
        }
        workgroupBarrier();
        for (var depth = 0u; depth < DEPTH; depth++) {
            let c = columns[depth * EDGE + k / 4u];
            $accumulate
        }
    }
    {{if moving}}
    if first < end {
        let before = reduced_at((end - 1u) / $column_blocks);
        $store_sums
    }
    {{else}}
    $store_sums
    {{end}}
}
