for (var piece = $index[task + 1u]; piece < end; piece++) {
    total += partials[half * uniforms[0].w + piece * K + k];
}
