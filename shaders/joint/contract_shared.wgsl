// As contract_shared.wgsl.
let elements = uniforms[0].x / head.w;
let stop = min(end, elements);
let LANES = head.z;
let lane = thread % LANES;
let first_summed = 3u + uniforms[0].y;
for (var which = 0u; which < head.w; which++) {
    for (var start = first; start < stop; start += THREADS / LANES) {
        let element = start + thread / LANES;
        let live = element < stop;
        var rest = which * elements + element;
        {{include output_axes}}
        // Those beyond the last go along to the barriers.
        let terms = select(0u, uniforms[0].w, live);
        {{include sum_lane_terms}}
        lane_values[thread] = total;
        {{include sum_lanes}}
        if live && lane == 0u {
            total = lane_values[thread];
            {{include store_output}}
        }
        workgroupBarrier();
    }
}
