// A pass over a list of cells that is sorted by the row of the target: the prediction at each cell
// from a row of every table, a, b and the loss there, and the sums of pieces of rows.
//
// A workgroup has a block of neighbouring cells, a thread for each. A piece is some cells of one
// row inside a block; LANES threads sum numerator and denominator of a piece, each for its own inner
// indices. What pieces sum is added up by gather.wgsl.
//
// numbers: [cells, workgroups in x, blocks, place of the losses]
//          [rows of the pieces, blocks: where they are in the index; distance to the second sums;
//           bits of the least prediction]
//          then where each table begins, the target's first
// index:   where each piece begins and the last ends, the row of each, the first piece of each block
// cells:   columns: the row of each table but the target's, the value, side tensors, roles
//
// Words after a dollar sign are filled in for each plan.

const K = $k;
const THREADS = $threads;
const LANES = $lanes;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, $numbers>;
@group(0) @binding(1) var<storage, read> tables: array<f32>;
@group(0) @binding(2) var<storage, read> cells: array<u32>;
@group(0) @binding(3) var<storage, read> index: array<u32>;
$bindings

// The row of the target of each cell of the block.
var<workgroup> rows: array<u32, THREADS>;
$workgroup

// What is wanted of a cell.
$entry

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.y * numbers[0].y + group.x;
    if block >= numbers[0].z {
        return;
    }
    let first_piece = index[numbers[1].y + block];
    let end_piece = index[numbers[1].y + block + 1u];
    let first = index[first_piece];
    let count = index[end_piece] - first;
    for (var piece = first_piece + thread; piece < end_piece; piece += THREADS) {
        let row = index[numbers[1].x + piece];
        for (var cell = index[piece]; cell < index[piece + 1u]; cell++) {
            rows[cell - first] = row;
        }
    }
    workgroupBarrier();
    $losses
    if thread < count {
        let cell = first + thread;
        let t0 = numbers[2].x + rows[thread] * K;
        $places
        var y = 0.0;
        for (var k = 0u; k < K; k++) {
            y = fma(tables[t0 + k], $product, y);
        }
        y = max(y, bitcast<f32>(numbers[1].w));
        let x = bitcast<f32>(cells[cell + $value * numbers[0].x]);
        let found = entry(x, y$sides);
        $keep
    }
    $sums
    $reduce_losses
}
