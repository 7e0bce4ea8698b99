// After the first pass of a sweep: keeps what it and the pass before it found for the host, and decides
// whether the device may go on without it. Each sum of losses is added up in whole numbers, so that
// nothing is lost or gained on the way: where the objective is not below the bound by more than what
// rounding to these numbers hides, where it is not finite, or a factor is not, all that comes after stops,
// and the host decides in double precision.
//
// uniforms: [words of results to keep, sweeps there is room for, where the bound's losses are, 0]
// course:   [sweeps made, 1 where it stopped, 0, 0], for each sweep its weights [momentum, share of its
//           own step, least extrapolation, 1 where it has a bound], and what was found, a row each
// sizes:    the workgroups of all dispatches of a sweep: 0 where it stopped

const THREADS = 64u;
const SUMS = 32u;
const COURSE_HEAD = 4u;
// What rounding 2 * SUMS numbers to whole ones hides.
const HIDDEN = 40;

@group(0) @binding(0) var<uniform> uniforms: vec4<u32>;
@group(0) @binding(1) var<storage, read> results: array<u32>;
@group(0) @binding(2) var<storage, read> broken: array<u32>;
@group(0) @binding(3) var<storage, read_write> course: array<u32>;
@group(0) @binding(4) var<storage, read_write> sizes: array<u32>;

var<workgroup> words: array<u32, THREADS>;
var<workgroup> numbers: array<i32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(local_invocation_index) thread: u32) {
    let sweep = course[0];
    let stopped = course[1] != 0u || sweep >= uniforms.y;
    // The objective's sums, then the bound's.
    let own = select(thread, uniforms.z + thread - SUMS, thread >= SUMS);
    let bits = results[own];
    words[thread] = bits & 0x7fffffffu;
    for (var half = THREADS / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < half {
            words[thread] = max(words[thread], words[thread + half]);
        }
    }
    workgroupBarrier();
    // Whole numbers of at most 25 bits, by a power of two.
    let exponent = words[0] >> 23u;
    let within = exponent > 30u && exponent < 250u;
    let scale = bitcast<f32>(select(0u, 278u - exponent, within) << 23u);
    numbers[thread] = select(0, i32(round(bitcast<f32>(select(0u, bits, within)) * scale)), within);
    for (var half = SUMS / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread % SUMS < half {
            numbers[thread] += numbers[thread + half];
        }
    }
    workgroupBarrier();
    if !stopped {
        let row = COURSE_HEAD + 4u * uniforms.y + sweep * (uniforms.x + 1u);
        for (var i = thread; i < uniforms.x; i += THREADS) {
            course[row + i] = results[i];
        }
        if thread == 0u {
            let bounded = course[COURSE_HEAD + 4u * sweep + 3u] != 0u;
            let clear = within && numbers[0] < numbers[SUMS] - HIDDEN;
            let finite = exponent < 255u;
            course[row + uniforms.x] = broken[0];
            course[0] = sweep + 1u;
            if broken[0] != 0u || !finite || (bounded && !clear) {
                course[1] = 1u;
                for (var i = 0u; i < arrayLength(&sizes); i++) {
                    sizes[i] = 0u;
                }
            }
        }
    }
}
