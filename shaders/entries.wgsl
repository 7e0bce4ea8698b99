// The first half of a pass whose inner dimension is large: a, b and the losses of every entry of a
// part of the data. a and b go to memory, where sums.wgsl finds them.
//
// A workgroup computes a tile of 4 EDGE by 4 EDGE entries, each thread 4 by 4 of them, with the
// rows of R and the columns of C in workgroup memory DEPTH inner indices at a time.
//
// Words after a dollar sign are filled in for each plan.

const EDGE = $edge;
const THREADS = EDGE * EDGE;
const TILE = 4u * EDGE;
const DEPTH = 16u;
const K = $k;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, $numbers>;
@group(0) @binding(1) var<storage, read> tensors: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
$bindings

// Where an index is, in the data and in the tensors that have its letters.
$at

var<workgroup> rows: array<vec4<f32>, DEPTH * EDGE>;
var<workgroup> columns: array<vec4<f32>, DEPTH * EDGE>;
var<workgroup> row_places: array<At, TILE>;
var<workgroup> column_places: array<At, TILE>;
$workgroup

$products

// An entry of the data.
$cell

// a, b and the loss, as far as they are wanted.
$entry

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.y * $fold + group.x;
    if block >= $block_count {
        return;
    }
    let outer = block / ($side_blocks * $other_blocks);
    let inner = block % ($side_blocks * $other_blocks);
    let own = own_at(outer / $summed_count);
    let summed = summed_at(outer % $summed_count);
    let first_row = (inner / $other_blocks) * TILE;
    let first_column = (inner % $other_blocks) * TILE;
    for (var i = thread; i < TILE; i += THREADS) {
        row_places[i] = side_at(min(first_row + i, $side_count - 1u));
        column_places[i] = other_at(min(first_column + i, $other_count - 1u));
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
                    row_product(own, summed, row_places[near], k),
                    row_product(own, summed, row_places[near + 1u], k),
                    row_product(own, summed, row_places[near + 2u], k),
                    row_product(own, summed, row_places[near + 3u], k),
                );
                c = vec4<f32>(
                    other_product(own, summed, column_places[near], k),
                    other_product(own, summed, column_places[near + 1u], k),
                    other_product(own, summed, column_places[near + 2u], k),
                    other_product(own, summed, column_places[near + 3u], k),
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
    $losses
    $cells
    $reduce_losses
}
