// As sum_losses.wgsl, for one role.
//
// uniforms: [workgroups, place of the result, role, lanes]
let SUMS = 32u;
let LANES = uniforms.w;
var total = 0.0;
var i = select(uniforms.x, thread, thread < SUMS * LANES);
while i < uniforms.x {
    var sum = 0.0;
    for (var j = 0u; j < 32u && i < uniforms.x; j++) {
        sum += losses[3u * i + uniforms.z];
        i += SUMS * LANES;
    }
    total += sum;
}
lane_values[thread] = total;
for (var half = LANES / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if thread < SUMS * half {
        lane_values[thread] += lane_values[thread + SUMS * half];
    }
}
if thread < SUMS {
    results[uniforms.y + SUMS * uniforms.z + thread] += lane_values[thread];
}
