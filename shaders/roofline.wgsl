// What a device can do at best (its roofline), for the benchmark to compare passes with: a copy,
// multiply-adds, powers or logarithms, each by every thread many times.

// Multiply-adds of four components that a thread does one after another, in each of eight chains.
const MULTIPLY_ADDS = 512u;
// Powers, or logarithms, of four components that a thread computes.
const POWERS = 64u;

@group(0) @binding(0) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let at = (group.y * groups.x + group.x) * 256u + thread;
    if at >= arrayLength(&result) {
        return;
    }
    {{if copy}}
    result[at] = source[at];
    {{end}}
    {{if multiply_adds}}
    let x = source[at];
    let y = x * 0.5;
    var v0 = x + 0.0;
    var v1 = x + 1.0;
    var v2 = x + 2.0;
    var v3 = x + 3.0;
    var v4 = x + 4.0;
    var v5 = x + 5.0;
    var v6 = x + 6.0;
    var v7 = x + 7.0;
    for (var i = 0u; i < MULTIPLY_ADDS; i++) {
        v0 = fma(v0, x, y);
        v1 = fma(v1, x, y);
        v2 = fma(v2, x, y);
        v3 = fma(v3, x, y);
        v4 = fma(v4, x, y);
        v5 = fma(v5, x, y);
        v6 = fma(v6, x, y);
        v7 = fma(v7, x, y);
    }
    result[at] = v0 + v1 + v2 + v3 + v4 + v5 + v6 + v7;
    {{end}}
    {{if powers}}
    var x = source[at] + 1.5;
    for (var i = 0u; i < POWERS; i++) {
        x = pow(x, vec4<f32>(0.7)) + 0.5;
    }
    result[at] = x;
    {{end}}
    {{if logarithms}}
    var x = source[at] + 1.5;
    for (var i = 0u; i < POWERS; i++) {
        x = log(x) + 2.0;
    }
    result[at] = x;
    {{end}}
}
