// As contract.wgsl.
let elements = uniforms[0].x / head.w;
let run = uniforms[2].y;
let step = uniforms[2].zw;
let first_summed = 3u + uniforms[0].y;
for (var half = 0u; half < head.w; half++) {
    for (var element = first + thread; element < min(end, elements); element += THREADS) {
        var rest = half * elements + element;
        {{include output_axes}}
        {{include sum_terms}}
        {{include store_output}}
    }
}
