// Sums of powers of the entries of a factor, for every value of some of its indices and every chunk
// of the slice at that index. Each is written as the slice's largest entry m and the sum of
// (x / m)^p: together they stay in the range of single precision, whatever p is.
//
// LANES threads share a sum. Each adds runs of at most 64 terms, so that rounding does not grow
// with their number, and the lanes are added pairwise.
//
// uniforms: [indices, chunks of a slice, entries of a slice, entries of a chunk]
//           [first entry of the factor, place of the result, workgroups in x, axes of the index]
//           [axes of a slice, 0, 0, 0]
//           then an axis each [size, stride in the factor, 0, 0]: the index's, then the slice's.

const LANES = $lanes;
const AXES = $axes;
// What is smaller may be flushed to 0.
const TINY = 1.2e-38;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, AXES + 3>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read_write> result: array<f32>;

var<workgroup> lane_values: array<f32, 64>;

fn offset(index: u32, first: u32, count: u32) -> u32 {
    var rest = index;
    var at = 0u;
    for (var axis = first + count; axis > first; axis--) {
        let size = uniforms[axis - 1u];
        at += (rest % size.x) * size.y;
        rest /= size.x;
    }
    return at;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let sum_at = ((group.y * uniforms[1].z + group.x) * 64u + thread) / LANES;
    let lane = thread % LANES;
    let chunks = uniforms[0].y;
    let live = sum_at < uniforms[0].x * chunks;
    let start = (sum_at % chunks) * uniforms[0].w;
    // Those beyond the last go along to the barriers.
    let end = select(start, min(start + uniforms[0].w, uniforms[0].z), live);
    let base = uniforms[1].x + offset(sum_at / chunks, 3u, uniforms[1].w);
    let slice = 3u + uniforms[1].w;

    var most = 0.0;
    for (var i = start + lane; i < end; i += LANES) {
        most = max(most, factors[base + offset(i, slice, uniforms[2].x)]);
    }
    lane_values[thread] = most;
    for (var half = LANES / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if lane < half {
            lane_values[thread] = max(lane_values[thread], lane_values[thread + half]);
        }
    }
    workgroupBarrier();
    most = lane_values[thread - lane];
    workgroupBarrier();

    var total = 0.0;
    if most > TINY {
        var i = start + lane;
        while i < end {
            var sum = 0.0;
            for (var n = 0u; n < 64u && i < end; n++) {
                let x = factors[base + offset(i, slice, uniforms[2].x)] / most;
                if x > 0.0 {
                    sum += $power;
                }
                i += LANES;
            }
            total += sum;
        }
    }
    lane_values[thread] = total;
    {{include sum_lanes}}
    if live && lane == 0u {
        result[uniforms[1].y + 2u * sum_at] = most;
        result[uniforms[1].y + 2u * sum_at + 1u] = lane_values[thread];
    }
}
