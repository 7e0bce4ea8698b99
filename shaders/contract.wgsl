// A contraction of one or two small tensors, a thread for each output:
// out[..] = scale * sum a[..] * b[..], or that added to what is there.
//
// uniforms: [outputs, output axes, summed axes, terms]
//           [base of out, base of a, base of b, bits of scale]
//           [workgroups in x, length of the last summed axis, its strides in a and b]
//           then an axis each [size, stride in out, stride in a, stride in b]:
//           first the output's, then the summed ones but the last.

{{include contraction_bindings}}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var rest = (group.y * uniforms[2].x + group.x) * 64u + thread;
    if rest >= uniforms[0].x {
        return;
    }
    {{include output_axes}}
    let run = uniforms[2].y;
    let step = uniforms[2].zw;
    let first_summed = 3u + uniforms[0].y;
    {{include sum_terms}}
    {{include store_output}}
}
