// The largest entry of a factor, in the place of its first chunk.
//
// uniforms: [first entry, entries, place of the first chunk, chunks]
var most = 0.0;
for (var i = thread; i < uniforms[0].y; i += THREADS) {
    most = max(most, factors[uniforms[0].x + i]);
}
{{include workgroup_max}}
workgroupBarrier();
for (var i = thread; i < uniforms[0].w; i += THREADS) {
    largest[uniforms[0].z + i] = maxima[0];
}
