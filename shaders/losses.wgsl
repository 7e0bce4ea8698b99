// Adds the losses of workgroups of a pass to what is there: 32 sums for each role, of which the host adds the
// rest in double precision. LANES threads share a sum.
//
// numbers: [sums for each role, place of the result, 0, 0]

const LANES = $lanes;

@group(0) @binding(0) var<uniform> numbers: vec4<u32>;
@group(0) @binding(1) var<storage, read> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

var<workgroup> sums: array<f32, 32u * LANES>;

@compute @workgroup_size(32u * LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var total = 0.0;
    var i = thread;
    while i < numbers.x {
        var sum = 0.0;
        for (var j = 0u; j < 32u && i < numbers.x; j++) {
            sum += losses[3u * i + group.x];
            i += 32u * LANES;
        }
        total += sum;
    }
    sums[thread] = total;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < 32u * half {
            sums[thread] += sums[thread + 32u * half];
        }
    }
    if thread < 32u {
        result[numbers.y + 32u * group.x + thread] += sums[thread];
    }
}
