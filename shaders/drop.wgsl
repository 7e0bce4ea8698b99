// Sets rows of numerator and denominator to 0: what closed forms say of them is not wanted.
//
// numbers: [rows, workgroups in x, length of a row, distance from numerator to denominator]

@group(0) @binding(0) var<uniform> numbers: vec4<u32>;
@group(0) @binding(1) var<storage, read> rows: array<u32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let own = (group.y * numbers.y + group.x) * 64u + thread;
    if own >= numbers.x * numbers.z {
        return;
    }
    let at = rows[own / numbers.z] * numbers.z + own % numbers.z;
    sums[at] = 0.0;
    sums[at + numbers.w] = 0.0;
}
