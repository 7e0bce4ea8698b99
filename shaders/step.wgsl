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
    {{if penalized}}
    {{include penalized_step}}
    {{end}}
    {{if plain_power}}
    // Where no observed entry touches the factor's entry, both are 0.
    if a > 0.0 || b > 0.0 {
        var moved = $at_zero;
        if b <= 0.0 {
            moved = $at_infinity;
        } else if a > 0.0 {
            let quotient = a / b;
            moved = $power_of_quotient;
        }
        {{include finish_step}}
    }
    {{end}}
    {{if plain_log}}
    if b != 0.0 {
        let moved = exp(clamp(a / b, -80.0, 80.0));
        {{include finish_step}}
    }
    {{end}}
    {{if lower}}
    if factors[at] * step < constraint.y {
        step = constraint.y / factors[at];
    }
    {{end}}
    {{if upper}}
    if factors[at] * step > constraint.z {
        step = constraint.z / factors[at];
    }
    {{end}}
    steps[at] = step;
    {{if grouped_power}}
    let x = factors[at];
    powers[at] = $power_a;
    powers[at + uniforms.w] = $power_b;
    {{end}}
    {{if grouped_log}}
    let x = factors[at] * step;
    powers[at] = x;
    powers[at + uniforms.w] = x;
    powers[at + 2u * uniforms.w] = x * log(step);
    {{end}}
}
