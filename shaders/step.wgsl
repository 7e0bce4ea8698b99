// The multiplicative step of every entry of a factor from its numerator A and denominator B, and the
// powers of it that the next steps of the group need.
//
// uniforms: [first entry of the factor, entries, workgroups in x, entries of all factors]

@group(0) @binding(0) var<uniform> uniforms: vec4<u32>;
@group(0) @binding(1) var<storage, read> quotients: array<f32>; // A, then B
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read_write> steps: array<f32>;
{{if grouped}}
@group(0) @binding(4) var<storage, read_write> powers: array<f32>;
{{end}}
{{if constrained}}
// What makes the penalty gradient, then the least and the most that an entry may be.
@group(0) @binding($constraint_binding) var<uniform> constraint: vec4<f32>;
{{end}}

// Steps stay inside this interval where a group has several factors: the surrogate is convex in each,
// so moving part of the way cannot raise the loss.
const LEAST = 1e-6;
const MOST = 1e6;
{{if penalized}}
// Newton steps of a solve, which begins near the root: half of them give all digits of single
// precision.
const NEWTON_STEPS = 8u;
{{end}}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (group.y * uniforms.z + group.x) * 64u + thread;
    if i >= uniforms.y {
        return;
    }
    let at = uniforms.x + i;
    let a = quotients[i];
    let b = quotients[i + uniforms.y];
    var step = 1.0;
    {{include step_entry}}
}
