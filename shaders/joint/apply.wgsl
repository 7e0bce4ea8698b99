// As apply_small.wgsl, for one factor, with bounds where it has some. An extrapolation leaves the point
// where the next sweep begins, too.
//
// uniforms: [first entry, entries, number of the factor, 0]
//           [bits of the fraction, bits of the least floor, bits of the least and the most entry]
{{if from_course}}
// The weights of this sweep.
let own_weights = 4u + 4u * course[0];
let weights = bitcast<vec4<f32>>(vec4<u32>(
    course[own_weights],
    course[own_weights + 1u],
    course[own_weights + 2u],
    course[own_weights + 3u],
));
{{end}}
let entries = uniforms[0].y;
var most = 0.0;
for (var i = thread; i < entries; i += THREADS) {
    let at = uniforms[0].x + i;
    {{include change_entry}}
}
{{include workgroup_max}}
workgroupBarrier();
let least = max(maxima[0] * bitcast<f32>(uniforms[1].x), bitcast<f32>(uniforms[1].y));
// Every thread comes back to the entries that it wrote itself.
for (var i = thread; i < entries; i += THREADS) {
    let at = uniforms[0].x + i;
    {{if bounded}}
    factors[at] = min(max(factors[at], max(least, bitcast<f32>(uniforms[1].z))), bitcast<f32>(uniforms[1].w));
    {{else}}
    factors[at] = max(factors[at], least);
    {{end}}
    {{if extrapolate}}
    origin[at] = factors[at];
    {{end}}
}
