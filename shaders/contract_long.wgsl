// A contraction whose outputs are few and whose sums are long: a workgroup for each output. Its
// threads sum every 64th term, and their sums are added pairwise.
//
// numbers: as in contract.wgsl, all summed axes among the axes.

const AXES = $axes;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, AXES + 3>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
$second
@group(0) @binding($out) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var rest = group.y * numbers[2].x + group.x;
    if rest >= numbers[0].x {
        return;
    }
    var at = numbers[1].xyz;
    for (var axis = numbers[0].y; axis > 0u; axis--) {
        let size = numbers[axis + 2u];
        at += (rest % size.x) * size.yzw;
        rest /= size.x;
    }
    let first_summed = 3u + numbers[0].y;
    var total = 0.0;
    var term = thread;
    while term < numbers[0].w {
        // Sums of at most 64 terms, so that rounding does not grow with their number.
        var sum = 0.0;
        for (var i = 0u; i < 64u && term < numbers[0].w; i++) {
            var place = at.yz;
            var index = term;
            for (var axis = numbers[0].z; axis > 0u; axis--) {
                let size = numbers[first_summed + axis - 1u];
                place += (index % size.x) * size.zw;
                index /= size.x;
            }
            $term
            term += 64u;
        }
        total += sum;
    }
    sums[thread] = total;
    for (var half = 32u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < half {
            sums[thread] += sums[thread + half];
        }
    }
    if thread == 0u {
        total = sums[0];
        $store
    }
}
