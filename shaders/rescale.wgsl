// The scales of a rescaling step among the slices of some factors: a thread for each value of the
// indices that they share. The sums of powers g of the slices are brought to p mu g = beta, with the
// same beta for all factors: the least sum of penalties among all scales whose product is 1.
//
// uniforms: [indices, workgroups in x, 0, 0]
//           then for each factor [place of its sums, chunks of a slice, bits of p, bits of ln(p mu)]

const FACTORS = $factors;
// What is smaller may be flushed to 0.
const TINY = 1.2e-38;
// A smaller change of the logarithm of a scale is rounding: making it would keep a fit that has
// converged moving.
const ROUNDING = 1e-5;
// Larger ones leave the range of single precision.
const FAR = 80.0;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, FACTORS + 1>;
@group(0) @binding(1) var<storage, read> sums: array<f32>;
@group(0) @binding(2) var<storage, read_write> scales: array<f32>; // those of a factor, then the next

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let count = uniforms[0].x;
    let index = (group.y * uniforms[0].y + group.x) * 64u + thread;
    if index >= count {
        return;
    }
    // ln(p mu g), then the logarithms of the scales.
    var levels: array<f32, FACTORS>;
    var sum = 0.0;
    var inverse = 0.0;
    var empty = false;
    for (var l = 0u; l < FACTORS; l++) {
        let about = uniforms[l + 1u];
        let p = bitcast<f32>(about.z);
        let first = about.x + 2u * about.y * index;
        var most = 0.0;
        for (var i = 0u; i < about.y; i++) {
            most = max(most, sums[first + 2u * i]);
        }
        if most > TINY {
            var total = 0.0;
            for (var i = 0u; i < about.y; i++) {
                let part = sums[first + 2u * i] / most;
                if part > 0.0 {
                    total += sums[first + 2u * i + 1u] * pow(part, p);
                }
            }
            levels[l] = bitcast<f32>(about.w) + log(total) + p * log(most);
            sum += levels[l] / p;
        } else {
            empty = true;
        }
        inverse += 1.0 / p;
    }
    let beta = sum / inverse;
    var largest = 0.0;
    var all = 0.0;
    for (var l = 0u; l < FACTORS; l++) {
        levels[l] = (beta - levels[l]) / bitcast<f32>(uniforms[l + 1u].z);
        largest = max(largest, abs(levels[l]));
        all += abs(levels[l]);
    }
    // Not the other way round: what is not a number changes nothing.
    let moves = largest > ROUNDING && all < FAR;
    var product = 1.0;
    for (var l = 0u; l < FACTORS; l++) {
        var scale = 1.0;
        if empty {
            // No term of the model takes the other slices: they vanish, or stay as they are.
            scale = $of_empty;
        } else if moves {
            scale = exp(levels[l]);
            // The last one makes up for the rounding of the others.
            if l == FACTORS - 1u {
                scale = 1.0 / product;
            }
            product *= scale;
        }
        scales[l * count + index] = scale;
    }
}
