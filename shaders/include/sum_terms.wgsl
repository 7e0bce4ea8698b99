var total = 0.0;
for (var term = 0u; term < uniforms[0].w; term++) {
    {{include term_axes}}
    var sum = 0.0;
    for (var i = 0u; i < run; i++) {
        {{include add_term}}
        place += step;
    }
    total += sum;
}
