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
    {{include gather_task}}
}
