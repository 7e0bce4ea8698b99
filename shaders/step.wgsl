// The factor of change of every entry of a factor from its numerator A and denominator B, and the
// powers of it that the next steps of the group need.
//
// numbers: [first entry of the factor, entries, workgroups in x, entries of all factors]

@group(0) @binding(0) var<uniform> numbers: vec4<u32>;
@group(0) @binding(1) var<storage, read> quotients: array<f32>; // A, then B
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read_write> lambda: array<f32>;
@group(0) @binding(4) var<storage, read_write> powers: array<f32>;
$rule

// Factors of change stay inside this interval where a group has several factors: the surrogate is
// convex in each, so moving part of the way cannot raise the loss.
const LEAST = 1e-6;
const MOST = 1e6;

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
    let a = quotients[i];
    let b = quotients[i + numbers.y];
    var change = 1.0;
    $change
    lambda[at] = change;
    $powers
}
