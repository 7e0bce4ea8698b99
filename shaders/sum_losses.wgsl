// Adds the losses of the workgroups of a pass to what is there: SUMS sums for each role, which the host
// adds up in double precision. LANES threads share a sum.
//
// uniforms: [workgroups, place of the result, 0, 0]

const SUMS = 32u;
const LANES = $lanes;

@group(0) @binding(0) var<uniform> uniforms: vec4<u32>;
@group(0) @binding(1) var<storage, read> losses: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

var<workgroup> sums: array<f32, SUMS * LANES>;

@compute @workgroup_size(SUMS * LANES)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var total = 0.0;
    var i = thread;
    while i < uniforms.x {
        var sum = 0.0;
        for (var j = 0u; j < 32u && i < uniforms.x; j++) {
            sum += losses[3u * i + group.x];
            i += SUMS * LANES;
        }
        total += sum;
    }
    sums[thread] = total;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < SUMS * half {
            sums[thread] += sums[thread + SUMS * half];
        }
    }
    if thread < SUMS {
        result[uniforms.y + SUMS * group.x + thread] += sums[thread];
    }
}
