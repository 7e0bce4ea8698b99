// The fused dense pass: numerator, denominator and losses in one reading of the data.
//
// A thread owns one index of the target's side (its row of R in registers, and all inner sums of
// numerator and denominator for it) and walks over the other side, whose tile of products C the
// workgroup shares: y = sum_k R[k] C[k]; then a, b and the loss of the entry; then
// N[k] += a C[k], D[k] += b C[k]. Nothing of the size of the data is written.
//
// A workgroup is LANES rows by SLICES slices of the other side. Its z index is the stretch of the
// summed letters and of the other side that it walks over; the stretches' sums are added by
// contract.wgsl, in a fixed order.
//
// Words after a dollar sign are filled in for each plan.

const LANES = $lanes;     // rows of a workgroup
const SLICES = $slices;   // threads that share a row
const THREADS = $threads;
const TILE = $tile;       // indices of the other side at a time
const K = $k;             // inner dimension
const BLOCKS_K = $blocks_k; // vectors of four that hold an inner dimension

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, $numbers>;
@group(0) @binding(1) var<storage, read> tensors: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
$bindings

var<workgroup> tile: array<vec4<f32>, $tile_vectors>;
var<workgroup> other_places: array<u32, TILE>;
$workgroup

// Where an index is, in the data and in the tensors that have its letters.
$at

// The product of the other side's tensors at an inner index.
$other_product

// The product of the tensors on the target's side besides the target.
$partner_product

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
    let lane = thread % LANES;
    let slice = thread / LANES;
    let own_index = block / $side_blocks;
    let own = own_at(own_index);
    let row = (block % $side_blocks) * LANES + lane;
    let live = row < $side_count;
    let side = side_at(min(row, $side_count - 1u));
    $stage_rows
    let place = ((group.z * SLICES + slice) * $own_count + own_index) * $target_k * $side_count + row;
    $registers
    let first = group.z * $stretch;
    let end = min(first + $stretch, $summed_count * $other_blocks);
    $fixed_rows
    for (var unit = first; unit < end; unit++) {
        let summed = summed_at(unit / $other_blocks);
        let start = (unit % $other_blocks) * TILE;
        let count = min(u32(TILE), $other_count - start);
        $moving_rows
        workgroupBarrier();
        let near = thread % TILE;
        // Those past the end are read, and not worked on.
        let other = other_at(start + min(near, count - 1u));
        if thread < TILE {
            other_places[near] = other.data;
        }
        for (var k = thread / TILE; k < BLOCKS_K; k += THREADS / TILE) {
            tile[near * BLOCKS_K + k] = other_vector(own, summed, other, 4u * k);
        }
        workgroupBarrier();
        $stage_cells
        $tile_losses
        $walk
        $add_losses
    }
    $finish
    $reduce_losses
}
