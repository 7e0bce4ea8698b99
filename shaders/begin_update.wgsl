// Before the factors of a group are updated: their multiplicative steps are 1, and the powers that
// the contractions of numerator and denominator take are the factors themselves.
//
// uniforms: [first entry, entries, workgroups in x, entries of all factors]

@group(0) @binding(0) var<uniform> uniforms: vec4<u32>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> steps: array<f32>;
@group(0) @binding(3) var<storage, read_write> powers: array<f32>;

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
    {{include begin_entry}}
}
