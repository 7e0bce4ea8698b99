// A contraction of one or two small tensors, a thread for each output:
// out[..] = scale * sum a[..] * b[..], or that added to what is there.
//
// numbers: [outputs, output axes, summed axes, terms]
//          [base of out, base of a, base of b, bits of scale]
//          [workgroups in x, length of the last summed axis, its strides in a and b]
//          then an axis each [size, stride in out, stride in a, stride in b]:
//          first the output's, then the summed ones but the last.

const AXES = $axes;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, AXES + 3>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
$second
@group(0) @binding($out) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var rest = (group.y * numbers[2].x + group.x) * 64u + thread;
    if rest >= numbers[0].x {
        return;
    }
    var at = numbers[1].xyz;
    for (var axis = numbers[0].y; axis > 0u; axis--) {
        let size = numbers[axis + 2u];
        at += (rest % size.x) * size.yzw;
        rest /= size.x;
    }
    let run = numbers[2].y;
    let step = numbers[2].zw;
    let first_summed = 3u + numbers[0].y;
    var total = 0.0;
    for (var term = 0u; term < numbers[0].w; term++) {
        var place = at.yz;
        var index = term;
        for (var axis = numbers[0].z; axis > 0u; axis--) {
            let size = numbers[first_summed + axis - 1u];
            place += (index % size.x) * size.zw;
            index /= size.x;
        }
        var sum = 0.0;
        for (var i = 0u; i < run; i++) {
            $term
            place += step;
        }
        total += sum;
    }
    $store
}
