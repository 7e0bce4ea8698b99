// Multiplies a factor with its steps, extrapolates it or leaves it as it is, and finds its largest
// entry: a workgroup for every CHUNK entries.
//
// uniforms: [first entry of the factor, entries, place of the first maximum, number of the factor]

const CHUNK = 1024u;
const THREADS = 64u;

@group(0) @binding(0) var<uniform> uniforms: vec4<u32>;
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
@group(0) @binding(3) var<storage, read_write> largest: array<f32>;
@group(0) @binding(4) var<storage, read_write> broken: array<atomic<u32>>;
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
    var most = 0.0;
    // Folded: there may be more workgroups than a dimension holds.
    let chunk = group.y * 32768u + group.x;
    for (var i = chunk * CHUNK + thread; i < min((chunk + 1u) * CHUNK, uniforms.y); i += THREADS) {
        let at = uniforms.x + i;
        {{include change_entry}}
    }
    {{include workgroup_max}}
    if thread == 0u && chunk * CHUNK < uniforms.y {
        largest[uniforms.z + chunk] = maxima[0];
    }
}
