// From the sums of pairs over the columns of a line, each by its weight, to a symmetric matrix for every line: a
// thread for each of its numbers adds up what splits have.
//
// uniforms: as in role_sums.wgsl, then
//           [workgroups in x, 0, 0, 0]
// partials: by split, line and pair
// sums:     by line, a square matrix each, over all lines
//
// Words after a dollar sign are filled in for each plan.

const LATENT = $latent;
const K = LATENT * LATENT;
const WIDTH = LATENT * (LATENT + 1u) / 2u;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = (group.y * uniforms[3].x + group.x) * 64u + thread;
    if number >= uniforms[2].z * K {
        return;
    }
    let line = number / K;
    let s = min(number % K / LATENT, number % LATENT);
    let t = max(number % K / LATENT, number % LATENT);
    let pair = s * (2u * LATENT - s + 1u) / 2u + t - s;
    var sum = 0.0;
    for (var split = 0u; split < uniforms[2].y; split++) {
        sum += partials[(split * uniforms[2].z + line) * WIDTH + pair];
    }
    sums[uniforms[2].w * K + number] = sum;
}
