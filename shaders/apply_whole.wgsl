// Changes small factors, a workgroup each, and raises their entries to a fraction of the factor's
// largest: multiplicative updates cannot leave zero. What apply.wgsl and raise.wgsl do in two
// dispatches for a factor of any size.
//
// numbers: [bits of the fraction, bits of the least floor, 0, 0]
//          then a factor each [first entry, entries, number of the factor, 0]

const THREADS = $threads;

@group(0) @binding(0) var<uniform> numbers: array<vec4<u32>, $vectors>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> other: array<f32>;
@group(0) @binding(3) var<storage, read_write> broken: array<atomic<u32>>;
$more

var<workgroup> maxima: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let factor = numbers[group.x + 1u];
    var most = 0.0;
    for (var i = thread; i < factor.y; i += THREADS) {
        let at = factor.x + i;
        $new_value
        factors[at] = value;
        most = max(most, value);
        // Not a comparison with infinity, which a compiler may take for impossible.
        let bits = bitcast<u32>(value) & 0x7f800000u;
        if bits == 0x7f800000u {
            atomicMax(&broken[0], factor.z + 1u);
        }
    }
    maxima[thread] = most;
    for (var half = THREADS / 2u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < half {
            maxima[thread] = max(maxima[thread], maxima[thread + half]);
        }
    }
    workgroupBarrier();
    let least = max(maxima[0] * bitcast<f32>(numbers[0].x), bitcast<f32>(numbers[0].y));
    // Every thread comes back to the entries that it wrote itself.
    for (var i = thread; i < factor.y; i += THREADS) {
        let at = factor.x + i;
        factors[at] = max(factors[at], least);
    }
}
