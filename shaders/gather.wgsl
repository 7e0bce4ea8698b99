// Adds sums of pieces of rows of stored entries, in their order: those of a long row to fewer, or
// those of a row to the numerator and denominator.
//
// uniforms: [tasks, workgroups in x, where they are in the index, distance to the second sums]
//           [place of the first sums in the result, distance to the second there, length of a row,
//            where in the index the contracted indices are that belong together]
// index:    tasks, each [where it goes, its first piece, its end]
//
// Words after a dollar sign are filled in for each plan.

const K = $k;
const WIDTH = $width;
const HALVES = $halves;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, 2>;
@group(0) @binding(1) var<storage, read> index: array<u32>;
@group(0) @binding(2) var<storage, read_write> partials: array<f32>;
{{if rows}}
@group(0) @binding(3) var<storage, read_write> sums: array<f32>;
{{end}}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let own = (group.y * uniforms[0].y + group.x) * 64u + thread;
    if own >= uniforms[0].x * WIDTH * HALVES {
        return;
    }
    let inner = own % WIDTH;
    let task = uniforms[0].z + 3u * (own / WIDTH % uniforms[0].x);
    let half = own / WIDTH / uniforms[0].x;
    let end = index[task + 2u];
    var total = 0.0;
    {{if folded}}
    for (var fold = 0u; fold < $folds; fold++) {
        let k = index[uniforms[1].w + inner * $folds + fold];
        {{include add_pieces}}
    }
    {{else}}
    let k = inner;
    {{include add_pieces}}
    {{end}}
    {{if rows}}
    let at = uniforms[1].x + half * uniforms[1].y + index[task] * uniforms[1].z + inner;
    {{if clamp_none}}
    sums[at] += total;
    {{end}}
    {{if clamp_all}}
    sums[at] = max(sums[at] + total, 0.0);
    {{end}}
    {{if clamp_second}}
    // A numerator may be negative, where it is a logarithm's.
    let sum = sums[at] + total;
    sums[at] = select(sum, max(sum, 0.0), half == 1u);
    {{end}}
    {{else}}
    partials[half * uniforms[0].w + index[task] * K + k] = total;
    {{end}}
}
