// A contraction whose sums are long beside the number of its outputs: LANES threads share an output,
// so that no thread waits for many terms one after another. A lane sums every LANES-th term, and the
// lanes' sums are added pairwise.
//
// uniforms: as in contract.wgsl, all summed axes among the axes.

const LANES = $lanes;
const THREADS = $threads;
{{include contraction_bindings}}

var<workgroup> lane_values: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let output = ((group.y * uniforms[2].x + group.x) * THREADS + thread) / LANES;
    let lane = thread % LANES;
    let live = output < uniforms[0].x;
    var rest = output;
    {{include output_axes}}
    let first_summed = 3u + uniforms[0].y;
    // Those beyond the last go along to the barriers.
    let terms = select(0u, uniforms[0].w, live);
    {{include sum_lane_terms}}
    lane_values[thread] = total;
    {{include sum_lanes}}
    if live && lane == 0u {
        total = lane_values[thread];
        {{include store_output}}
    }
}
