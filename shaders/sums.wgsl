// The second half of a pass whose inner dimension is large: numerator and denominator from the a
// and b that entries.wgsl wrote.
//
// A workgroup sums 4 EDGE rows by 4 EDGE inner indices over a stretch of the summed letters and of
// the other side, each thread 4 by 4 of them, DEPTH columns at a time.
//
// Words after a dollar sign are filled in for each plan.

const EDGE = $edge;
const THREADS = EDGE * EDGE;
const TILE = 4u * EDGE;
const DEPTH = 16u;
const K = $k;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, $numbers>;
@group(0) @binding(1) var<storage, read> tensors: array<f32>;
$bindings

// Where an index is in the tensors that have its letters.
$at

$workgroup
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
    let first_row = (block / K_BLOCKS % $side_blocks) * TILE;
    let own_index = block / K_BLOCKS / $side_blocks;
    let own = own_at(own_index);
    let row = 4u * (thread % EDGE);
    let k = 4u * (thread / EDGE);
    let first = group.z * $stretch;
    let end = min(first + $stretch, $summed_count * $other_blocks);
    let place = ((group.z * $own_count + own_index) * K + first_k + k) * $side_count + first_row + row;
    $registers
    for (var unit = first; unit < end; unit++) {
        let summed_index = unit / $other_blocks;
        let summed = summed_at(summed_index);
        let start = (unit % $other_blocks) * DEPTH;
        $moving
        let slab = ((own_index * $summed_count + summed_index) * $other_count + start) * $side_count;
        workgroupBarrier();
        for (var i = thread; i < DEPTH * EDGE; i += THREADS) {
            let depth = i / EDGE;
            let near = 4u * (i % EDGE);
            let there = start + depth < $other_count;
            let at = slab + depth * $side_count + first_row + near;
            let left = select(0u, $side_count - min(first_row + near, $side_count), there);
            $load_entries
            var c = vec4<f32>();
            if there {
                let other = other_at(start + depth);
                c = other_vector(own, summed, other, first_k + near);
            }
            columns[i] = c;
        }
        workgroupBarrier();
        for (var depth = 0u; depth < DEPTH; depth++) {
            let c = columns[depth * EDGE + k / 4u];
            $accumulate
        }
    }
    $finish
}
