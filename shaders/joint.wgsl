// Small operations in one dispatch. A workgroup does a chain of operations, one after another; what it
// writes, no other workgroup reads or writes. Each operation is a function, of which the device reads
// from its program when to call it and on what.
//
// start:   [where the workgroups are in the program, 0, 0, 0]
// program: for each workgroup [its first operation, how many, its first element, the end of them];
//          operations, each [function, vectors, threads that share an output, halves], then what the
//          shader that it is in place of has as uniforms.

const THREADS = $threads;
// As in step.wgsl.
const LEAST = 1e-6;
const MOST = 1e6;
const NEWTON_STEPS = 8u;

@group(0) @binding(0) var<uniform> start: vec4<u32>;
@group(0) @binding(1) var<storage, read> program: array<vec4<u32>>;
$bindings

var<workgroup> lane_values: array<f32, THREADS>;
var<workgroup> maxima: array<f32, THREADS>;

$functions

@compute @workgroup_size(THREADS)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let own = program[start.x + group.x];
    var at = own.x;
    for (var n = 0u; n < own.y; n++) {
        let head = program[at];
        switch head.x {
            $calls
            default: {}
        }
        at += head.y;
        // The next operation reads what other threads of the workgroup wrote.
        storageBarrier();
        workgroupBarrier();
    }
}
