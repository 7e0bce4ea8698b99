// A contraction whose sums are long beside the number of its outputs: LANES threads share an output,
// so that no thread waits for many terms one after another. A lane sums every LANES-th term, and the
// lanes' sums are added pairwise.
//
// numbers: as in contract.wgsl, all summed axes among the axes.

const AXES = $axes;
const LANES = $lanes;
const THREADS = $threads;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, AXES + 3>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
$second
@group(0) @binding($out) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let output = ((group.y * numbers[2].x + group.x) * THREADS + thread) / LANES;
    let lane = thread % LANES;
    let live = output < numbers[0].x;
    var rest = output;
    var at = numbers[1].xyz;
    for (var axis = numbers[0].y; axis > 0u; axis--) {
        let size = numbers[axis + 2u];
        at += (rest % size.x) * size.yzw;
        rest /= size.x;
    }
    let first_summed = 3u + numbers[0].y;
    // Those beyond the last go along to the barriers.
    let terms = select(0u, numbers[0].w, live);
    var total = 0.0;
    var term = lane;
    while term < terms {
        // Sums of at most 64 terms, so that rounding does not grow with their number.
        var sum = 0.0;
        for (var i = 0u; i < 64u && term < terms; i++) {
            var place = at.yz;
            var index = term;
            for (var axis = numbers[0].z; axis > 0u; axis--) {
                let size = numbers[first_summed + axis - 1u];
                place += (index % size.x) * size.zw;
                index /= size.x;
            }
            $term
            term += LANES;
        }
        total += sum;
    }
    sums[thread] = total;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            sums[thread] += sums[thread + half];
        }
    }
    if live && lane == 0u {
        total = sums[thread];
        $store
    }
}
