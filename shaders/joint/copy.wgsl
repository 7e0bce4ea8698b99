// Copies words.
//
// uniforms: [first, how many, where they go, 0]
for (var i = first + thread; i < min(end, uniforms.y); i += THREADS) {
    $out[uniforms.z + i] = $a[uniforms.x + i];
}
