// Coordinate descent on the quadratic form of a factor: 1/2 x q x - n x for every row x of it, entry after
// entry to its minimum, as core's algebra/quadratic.rs does it. A workgroup has some rows; LANES threads
// share a row, each with the entries and the negative gradient at its own places.
//
{{if idle}}
// Penalties leave entries out that no data depend on while another factor has nothing but zeros in their
// component; they are halved instead (core's algebra/quadratic.rs says why).
//
{{end}}
// uniforms: [the first row, rows, workgroups in x, rows of a batch]
//           [first entry of the factor, chunks of the factor, the first of them, number of the factor]
//           [bits of an l1 penalty, of twice an l2 penalty, of the least and the most entry]
//           [rows of the factor, whether idle entries are halved]
// linear:   n, in the factor's order
// square:   q by batch, a square matrix each
// offsets:  where each row begins in the factor, then what each entry adds to it
// largest:  the largest entry of every chunk of factors
{{if idle}}
// asleep:   not 0 for the latent indices of which another factor has zeros alone
{{end}}
//
// Words after a dollar sign are filled in for each plan.

const K = $k;
const LANES = $lanes;
const ROWS = $rows;
const THREADS = $threads;
// Entries that a thread has of its row.
const OWN = $own;
// The most cycles over the entries of a row.
const CYCLES = $cycles;
// A row is left where the squares of a cycle's steps are this much smaller than those of its first.
const SHORT = 1e-6;
// A step takes no entry further than this times the largest of the factor.
const REACH = 1e8;
{{if idle}}
// What is left of idle entries, and when that is a rounding error beside the largest of the factor.
const SHRINK = 0.5;
const FORGOTTEN = 1e-16;
{{end}}

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> linear: array<f32>;
@group(0) @binding(3) var<storage, read> square: array<f32>;
@group(0) @binding(4) var<storage, read> offsets: array<u32>;
@group(0) @binding(5) var<storage, read> largest: array<f32>;
@group(0) @binding(6) var<storage, read_write> broken: array<atomic<u32>>;
{{if idle}}
@group(0) @binding(7) var<storage, read> asleep: array<u32>;
{{end}}

var<workgroup> maxima: array<f32, THREADS>;
// The entries of each row as they begin.
var<workgroup> entries: array<f32, $shared_entries>;
// The step that is made in each row, and the one before it.
var<workgroup> steps: array<f32, $steps>;
var<workgroup> moves: array<f32, THREADS>;

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = group.y * uniforms[0].z + group.x;
    if workgroup * ROWS >= uniforms[0].y {
        return;
    }
    var most = 0.0;
    for (var i = thread; i < uniforms[1].y; i += THREADS) {
        most = max(most, largest[uniforms[1].z + i]);
    }
    {{include workgroup_max}}
    let own_row = thread / LANES;
    let lane = thread % LANES;
    let number = workgroup * ROWS + own_row;
    let there = number < uniforms[0].y;
    let row = uniforms[0].x + min(number, uniforms[0].y - 1u);
    let at = uniforms[1].x + offsets[row];
    let row_count = uniforms[3].x;
    let form = row / uniforms[0].w * K * K;
    let ridge = bitcast<f32>(uniforms[2].y);
    let lower = bitcast<f32>(uniforms[2].z);

    var theta: array<f32, OWN>;
    var descent: array<f32, OWN>;
    {{if idle}}
    // What the penalty adds to the curvature of each.
    var ridges: array<f32, OWN>;
    // The largest entry is there.
    workgroupBarrier();
    {{end}}
    for (var own = 0u; own < OWN; own++) {
        let s = own * LANES + lane;
        if s < K {
            let place = offsets[row_count + s];
            theta[own] = factors[at + place];
            {{if idle}}
            let idle = asleep[s] != 0u && square[form + s * K + s] <= 0.0;
            if idle && uniforms[3].y != 0u {
                let shrunk = theta[own] * SHRINK;
                theta[own] = max(select(shrunk, 0.0, shrunk <= FORGOTTEN * maxima[0]), lower);
            }
            ridges[own] = select(ridge, 0.0, idle);
            let penalty_gradient = select(bitcast<f32>(uniforms[2].x), 0.0, idle);
            descent[own] = linear[offsets[row] + place] - penalty_gradient;
            {{else}}
            descent[own] = linear[offsets[row] + place] - bitcast<f32>(uniforms[2].x);
            {{end}}
            entries[own_row * K + s] = theta[own];
        }
    }
    workgroupBarrier();
    let top = maxima[0];
    var upper = bitcast<f32>(uniforms[2].w);
    if top > 0.0 && top < 1e30 {
        upper = min(upper, max(REACH * top, lower));
    }
    for (var own = 0u; own < OWN; own++) {
        let s = own * LANES + lane;
        if s < K {
            {{if idle}}
            var curved = ridges[own] * theta[own];
            {{else}}
            var curved = ridge * theta[own];
            {{end}}
            for (var t = 0u; t < K; t++) {
                curved = fma(square[form + t * K + s], entries[own_row * K + t], curved);
            }
            descent[own] -= curved;
        }
    }
    var moving = there;
    var first = 0.0;
    for (var cycle = 0u; cycle < CYCLES; cycle++) {
        var moved = 0.0;
        for (var s = 0u; s < K; s++) {
            // Two places in turn, so that one barrier a step is enough.
            let slot = (s & 1u) * ROWS + own_row;
            if lane == s % LANES {
                let own = s / LANES;
                {{if idle}}
                let curvature = square[form + s * K + s] + ridges[own];
                {{else}}
                let curvature = square[form + s * K + s] + ridge;
                {{end}}
                let x = theta[own];
                var next = x;
                var step = 0.0;
                if moving {
                    if curvature > 0.0 {
                        step = min(max(descent[own] / curvature, lower - x), upper - x);
                        moved = fma(step * step, curvature, moved);
                        next = x + step;
                    } else if descent[own] < 0.0 {
                        // No data depend on the entry; a penalty does all the same.
                        next = lower;
                    }
                }
                theta[own] = next;
                steps[slot] = step;
            }
            workgroupBarrier();
            let step = steps[slot];
            if step != 0.0 {
                for (var own = 0u; own < OWN; own++) {
                    let t = own * LANES + lane;
                    if t < K {
                        {{if idle}}
                        let q = square[form + s * K + t] + select(0.0, ridges[own], s == t);
                        {{else}}
                        let q = square[form + s * K + t] + select(0.0, ridge, s == t);
                        {{end}}
                        descent[own] = fma(-q, step, descent[own]);
                    }
                }
            }
        }
        moves[thread] = moved;
        workgroupBarrier();
        var total = 0.0;
        for (var other = 0u; other < LANES; other++) {
            total += moves[own_row * LANES + other];
        }
        if cycle == 0u {
            first = total;
        }
        moving = moving && total > SHORT * first;
        workgroupBarrier();
    }
    for (var own = 0u; own < OWN; own++) {
        let s = own * LANES + lane;
        if there && s < K {
            factors[at + offsets[row_count + s]] = theta[own];
            // Not a comparison with infinity, which a compiler may take for impossible.
            if (bitcast<u32>(theta[own]) & 0x7f800000u) == 0x7f800000u {
                atomicMax(&broken[0], uniforms[1].w + 1u);
            }
        }
    }
}
