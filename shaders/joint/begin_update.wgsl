// As begin_update.wgsl.
for (var i = first + thread; i < min(end, uniforms.y); i += THREADS) {
    let at = uniforms.x + i;
    {{include begin_entry}}
}
