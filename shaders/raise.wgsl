// Raises the entries of a factor to a fraction of its largest entry: multiplicative updates cannot
// leave zero.
//
// numbers: [first entry of the factor, entries, place of the first maximum, number of maxima]
//          [workgroups in x, bits of the fraction, bits of the least floor, 0]

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> largest: array<f32>;
$rule

var<workgroup> maxima: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var most = 0.0;
    for (var i = thread; i < numbers[0].w; i += 64u) {
        most = max(most, largest[numbers[0].z + i]);
    }
    maxima[thread] = most;
    for (var half = 32u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < half {
            maxima[thread] = max(maxima[thread], maxima[thread + half]);
        }
    }
    workgroupBarrier();
    let least = max(maxima[0] * bitcast<f32>(numbers[1].y), bitcast<f32>(numbers[1].z));
    let i = (group.y * numbers[1].x + group.x) * 64u + thread;
    if i < numbers[0].y {
        let at = numbers[0].x + i;
        $value
    }
}
