// As gather.wgsl.
let K = $k;
let WIDTH = $width;
let HALVES = $halves;
for (var own = first + thread; own < min(end, uniforms[0].x * WIDTH * HALVES); own += THREADS) {
    {{include gather_task}}
}
