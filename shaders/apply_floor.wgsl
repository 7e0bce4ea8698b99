// Clamps the entries of a factor to its floor, a fraction of its largest entry, as multiplicative
// updates cannot leave zero; or sets to 0 what is at the floor.
//
// uniforms: [first entry of the factor, entries, place of the first maximum, number of maxima]
//           [workgroups in x, bits of the fraction, bits of the least floor, 0]

const THREADS = 64u;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> largest: array<f32>;
{{if bounded}}
// The least and the most that an entry may be are y and z.
@group(0) @binding(3) var<uniform> constraint: vec4<f32>;
{{end}}

var<workgroup> maxima: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var most = 0.0;
    for (var i = thread; i < uniforms[0].w; i += THREADS) {
        most = max(most, largest[uniforms[0].z + i]);
    }
    {{include workgroup_max}}
    workgroupBarrier();
    let least = max(maxima[0] * bitcast<f32>(uniforms[1].y), bitcast<f32>(uniforms[1].z));
    let i = (group.y * uniforms[1].x + group.x) * THREADS + thread;
    if i < uniforms[0].y {
        let at = uniforms[0].x + i;
        {{if flush}}
        if factors[at] <= least {
            factors[at] = 0.0;
        }
        {{end}}
        {{if clamp}}
        factors[at] = max(factors[at], least);
        {{end}}
        {{if bounded}}
        factors[at] = min(max(factors[at], max(least, constraint.y)), constraint.z);
        {{end}}
    }
}
