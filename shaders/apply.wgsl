// Multiplies a factor with its factors of change, and finds its largest entry: a workgroup for
// every CHUNK entries.
//
// numbers: [first entry of the factor, entries, place of the first maximum, number of the factor]

const CHUNK = 1024u;

@group(0) @binding(0) var<uniform> numbers: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> factors: array<f32>;
@group(0) @binding(2) var<storage, read> other: array<f32>;
@group(0) @binding(3) var<storage, read_write> largest: array<f32>;
@group(0) @binding(4) var<storage, read_write> broken: array<atomic<u32>>;
$more

var<workgroup> maxima: array<f32, 64>;

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    var most = 0.0;
    // Folded: there may be more workgroups than a dimension holds.
    let chunk = group.y * 32768u + group.x;
    for (var i = chunk * CHUNK + thread; i < min((chunk + 1u) * CHUNK, numbers.y); i += 64u) {
        let at = numbers.x + i;
        $new_value
        factors[at] = value;
        most = max(most, value);
        // Not a comparison with infinity, which a compiler may take for impossible.
        let bits = bitcast<u32>(value) & 0x7f800000u;
        if bits == 0x7f800000u {
            atomicMax(&broken[0], numbers.w + 1u);
        }
    }
    maxima[thread] = most;
    for (var half = 32u; half > 0u; half >>= 1u) {
        workgroupBarrier();
        if thread < half {
            maxima[thread] = max(maxima[thread], maxima[thread + half]);
        }
    }
    if thread == 0u && chunk * CHUNK < numbers.y {
        largest[numbers.z + chunk] = maxima[0];
    }
}
