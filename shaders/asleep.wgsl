// Which latent indices of a factor no data depend on because another factor has nothing but zeros in their
// component: core's algebra/quadratic.rs says what becomes of them. A workgroup for every value of the
// factor's latent indices.
//
// uniforms: [workgroups in x, batches of the factor's form, 0, 0]
//           then for each other factor [its first entry, where the places of its slices begin in offsets, where
//           those of the entries of a slice do, entries of a slice]
// square:   the factor's quadratic form by batch, a square matrix each
// asleep:   1 for each such index, and 0 for the others
//
// Words after a dollar sign are filled in for each plan.

const K = $k;
const OTHERS = $others;
const THREADS = $threads;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, OTHERS + 1>;
@group(0) @binding(1) var<storage, read> factors: array<f32>;
@group(0) @binding(2) var<storage, read> square: array<f32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> asleep: array<u32>;

var<workgroup> maxima: array<f32, THREADS>;

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let s = group.y * uniforms[0].x + group.x;
    if s >= K {
        return;
    }
    // Mostly data depend on it everywhere, and no factor is gone through.
    var most = 0.0;
    for (var batch = thread; batch < uniforms[0].y; batch += THREADS) {
        if square[batch * K * K + s * K + s] <= 0.0 {
            most = 1.0;
        }
    }
    {{include workgroup_max}}
    workgroupBarrier();
    let without_data = maxima[0] > 0.0;
    var zeros = false;
    for (var other = 0u; other < OTHERS; other++) {
        // What was found before has been read by all.
        workgroupBarrier();
        let about = uniforms[other + 1u];
        most = 0.0;
        if without_data {
            let first = about.x + offsets[about.y + s];
            for (var i = thread; i < about.w; i += THREADS) {
                most = max(most, factors[first + offsets[about.z + i]]);
            }
        }
        {{include workgroup_max}}
        workgroupBarrier();
        zeros = zeros || !(maxima[0] > 0.0);
    }
    if thread == 0u {
        asleep[s] = select(0u, 1u, without_data && zeros);
    }
}
