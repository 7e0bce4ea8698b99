// As step.wgsl; a constraint follows its uniforms.
{{if constrained}}
let constraint = bitcast<vec4<f32>>(uniforms[1u]);
{{end}}
for (var i = first + thread; i < min(end, uniforms.y); i += THREADS) {
    let at = uniforms.x + i;
    let a = quotients[i];
    let b = quotients[i + uniforms.y];
    var step = 1.0;
    {{include step_entry}}
}
