// Multiplies every entry of a factor with the scale of its slice.
//
// uniforms: [first entry of the factor, entries, workgroups in x, place of the first scale]
//           [axes, 0, 0, 0]
//           then an axis of the factor each [size, stride in the scales, 0, 0].

const AXES = $axes;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, AXES + 2>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let i = (group.y * uniforms[0].z + group.x) * 64u + thread;
    if i >= uniforms[0].y {
        return;
    }
    var rest = i;
    var at = uniforms[0].w;
    for (var axis = uniforms[1].x; axis > 0u; axis--) {
        let size = uniforms[axis + 1u];
        at += (rest % size.x) * size.y;
        rest /= size.x;
    }
    factors[uniforms[0].x + i] *= scales[at];
}
