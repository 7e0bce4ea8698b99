// Changes small factors, a workgroup each, and clamps their entries to the floor, a fraction of the
// factor's largest: multiplicative updates cannot leave zero. What apply.wgsl and apply_floor.wgsl do
// in two dispatches for a factor of any size.
//
// uniforms: [bits of the fraction, bits of the least floor, 0, 0]
//           then a factor each [first entry, entries, number of the factor, 0]

const THREADS = $threads;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, $vectors>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
{{if multiply}}
@group(0) @binding(2) var<storage, read> steps: array<f32>;
{{end}}
{{if keep}}
@group(0) @binding(2) var<storage, read> anchor: array<f32>;
{{end}}
{{if extrapolate}}
@group(0) @binding(2) var<storage, read_write> anchor: array<f32>;
{{end}}
@group(0) @binding(3) var<storage, read_write> broken: array<atomic<u32>>;
{{if extrapolate}}
@group(0) @binding($weights_binding) var<uniform> weights: vec4<f32>;
@group(0) @binding($origin_binding) var<storage, read> origin: array<f32>;
{{end}}

var<workgroup> maxima: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let factor = uniforms[group.x + 1u];
    var most = 0.0;
    for (var i = thread; i < factor.y; i += THREADS) {
        let at = factor.x + i;
        {{include change_entry}}
    }
    {{include workgroup_max}}
    workgroupBarrier();
    let least = max(maxima[0] * bitcast<f32>(uniforms[0].x), bitcast<f32>(uniforms[0].y));
    // Every thread comes back to the entries that it wrote itself.
    for (var i = thread; i < factor.y; i += THREADS) {
        let at = factor.x + i;
        factors[at] = max(factors[at], least);
    }
}
