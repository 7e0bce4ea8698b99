// Before the factors of a group are updated: their factors of change are 1, and the powers that
// the contractions of numerator and denominator take are the factors themselves.
//
// numbers: [first entry, entries, workgroups in x, entries of all factors]

@group(0) @binding(0) var<uniform> numbers: vec4<u32>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> lambda: array<f32>;
@group(0) @binding(3) var<storage, read_write> powers: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (group.y * numbers.z + group.x) * 64u + thread;
    if i >= numbers.y {
        return;
    }
    let at = numbers.x + i;
    lambda[at] = 1.0;
    powers[at] = factors[at];
    powers[at + numbers.w] = factors[at];
    // x * ln(x) at a factor of change of 1.
    powers[at + 2u * numbers.w] = 0.0;
}
