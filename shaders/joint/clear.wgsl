// Sets words to 0.
//
// uniforms: [first, how many, 0, 0]
for (var i = first + thread; i < min(end, uniforms.y); i += THREADS) {
    $out[uniforms.x + i] = 0.0;
}
