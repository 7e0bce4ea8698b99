// A pass over stored entries (SDDMM and sparse MTTKRP in one) that are sorted by the row of the
// output: the prediction at each entry from a row of every Khatri-Rao table, a, b and the loss there,
// and the sums of pieces of rows.
//
// A workgroup has a block of neighbouring entries, a thread for each. A piece is some entries of one
// row inside a block; LANES threads sum numerator and denominator of a piece, each for its own
// contracted indices. gather.wgsl adds up what pieces sum.
//
// uniforms: [entries, workgroups in x, blocks, place of the losses]
//           [rows of the pieces, blocks: where they are in the index; distance to the second sums;
//            bits of the least prediction]
//           then where each table begins, the output's first
// index:    where each piece begins and the last ends, the row of each, the first piece of each block
// entries:  columns: the row of each table but the output's, the value, entry parameters, roles
//
// Words after a dollar sign are filled in for each plan.

const K = $k;
const THREADS = $threads;
const LANES = $lanes;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, $uniforms>;
@group(0) @binding(1) var<storage, read> tables: array<f32>;
@group(0) @binding(2) var<storage, read> entries: array<u32>;
@group(0) @binding(3) var<storage, read> index: array<u32>;
$bindings

// The row of the output of each entry of the block.
var<workgroup> rows: array<u32, THREADS>;
{{if numerator}}
var<workgroup> a_of: array<f32, THREADS>;
{{end}}
{{if denominator}}
var<workgroup> b_of: array<f32, THREADS>;
{{end}}
{{if losses}}
var<workgroup> loss_sums: array<vec3<f32>, THREADS>;
{{end}}

// What is wanted of an entry.
$entry_terms

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.y * uniforms[0].y + group.x;
    if block >= uniforms[0].z {
        return;
    }
    let first_piece = index[uniforms[1].y + block];
    let end_piece = index[uniforms[1].y + block + 1u];
    let first = index[first_piece];
    let count = index[end_piece] - first;
    for (var piece = first_piece + thread; piece < end_piece; piece += THREADS) {
        let row = index[uniforms[1].x + piece];
        for (var entry = index[piece]; entry < index[piece + 1u]; entry++) {
            rows[entry - first] = row;
        }
    }
    workgroupBarrier();
    {{if losses}}
    var loss = vec3<f32>();
    {{end}}
    if thread < count {
        let entry = first + thread;
        let t0 = uniforms[2].x + rows[thread] * K;
        $table_rows
        var y = 0.0;
        for (var k = 0u; k < K; k++) {
            y = fma(tables[t0 + k], $product, y);
        }
        y = max(y, bitcast<f32>(uniforms[1].w));
        let x = bitcast<f32>(entries[entry + $value * uniforms[0].x]);
        let found = entry_terms(x, y$parameters);
        {{if numerator}}
        a_of[thread] = $found_a;
        {{end}}
        {{if denominator}}
        b_of[thread] = $found_b;
        {{end}}
        {{if train_losses}}
        loss.x = $found_loss;
        {{end}}
        {{if withheld_losses}}
        let role = entries[entry + $role * uniforms[0].x];
        loss.y = select(0.0, $found_loss, role == 2u);
        loss.z = select(0.0, $found_loss, role == 3u);
        {{end}}
        {{if less_train_losses}}
        loss.x = -$found_less;
        {{end}}
    }
    {{if sums}}
    workgroupBarrier();
    for (var piece = first_piece + thread / LANES; piece < end_piece; piece += THREADS / LANES) {
        let start = index[piece];
        let end = index[piece + 1u];
        for (var k = thread % LANES; k < K; k += LANES) {
            {{if numerator}}
            var n = 0.0;
            {{end}}
            {{if denominator}}
            var d = 0.0;
            {{end}}
            for (var entry = start; entry < end; entry++) {
                $table_rows
                let product = $product;
                {{if numerator}}
                n = fma(a_of[entry - first], product, n);
                {{end}}
                {{if denominator}}
                d = fma(b_of[entry - first], product, d);
                {{end}}
            }
            {{if numerator}}
            partials[piece * K + k] = n;
            {{end}}
            {{if denominator}}
            partials[$denominator_place] = d;
            {{end}}
        }
    }
    {{end}}
    {{if losses}}
    {{include reduce_losses}}
    {{end}}
}
