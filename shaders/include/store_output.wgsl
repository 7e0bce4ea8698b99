{{if add}}
$out[at.x] += bitcast<f32>(uniforms[1].w) * total;
{{else}}
$out[at.x] = bitcast<f32>(uniforms[1].w) * total;
{{end}}
