// Sets rows of numerator and denominator to 0: where most of a row is masked, little but rounding
// errors would be left of sums over all entries.
//
// uniforms: [rows, workgroups in x, length of a row, distance from numerator to denominator]

@group(0) @binding(0) var<uniform> uniforms: vec4<u32>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let own = (group.y * uniforms.y + group.x) * 64u + thread;
    if own >= uniforms.x * uniforms.z {
        return;
    }
    let at = rows[own / uniforms.z] * uniforms.z + own % uniforms.z;
    sums[at] = 0.0;
    sums[at + uniforms.w] = 0.0;
}
