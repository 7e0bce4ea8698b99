// Sums over the columns that a line lists: the part of "the sum of W V over a role's entries" that is
// added up entry by entry, without a prediction. V is a small matrix with a row of K numbers for every
// column; a line is a row of the data, over all batches, and lists the columns of all roles but one.
//
// A workgroup has LINES lines of one chunk and LANES of the K numbers, and goes over blocks of columns:
// their part of V lies in workgroup memory meanwhile, and a thread adds up for its line and its number.
{{if pairs}}
// V has the products of two latent indices, each pair once, which are made on the way there.
{{end}}
{{if weighted}}
// Here no line lists anything: every column counts by its weight.
{{end}}
//
// uniforms: [chunks, workgroups of a chunk, workgroups in x, the first chunk]
//           [chunks of a batch, lines of a batch, columns, blocks of columns]
//           [blocks of a split, splits, lines, the first line]
// columns:  V by batch, column and number, or what the pairs are made of
{{if weighted}}
// weights:  by block, line and column, 256 of a block
{{else}}
// places:   columns within their block, a byte each
// heads:    by block and line: where the places of the line begin; how many of them have each role, and
//           the role that the line does not list (role_head.wgsl)
{{end}}
// partials: by split, slot, line and number
//
// Words after a dollar sign are filled in for each plan.

const K = $k;
{{if pairs}}
const LATENT = $latent;
{{end}}
const LANES = $lanes;
const LINES = $lines;
const THREADS = $threads;
const TILES = $tiles;
const BLOCK = $block;
const CHUNK = $chunk;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> columns: array<f32>;
{{if weighted}}
@group(0) @binding(2) var<storage, read> weights: array<f32>;
@group(0) @binding(3) var<storage, read_write> partials: array<f32>;
{{else}}
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read> heads: array<u32>;
@group(0) @binding(4) var<storage, read_write> partials: array<f32>;
{{end}}

var<workgroup> panel: array<f32, $panel>;
{{if pairs}}
// The latent indices of each number.
var<workgroup> pairs: array<vec2<u32>, LANES>;
{{end}}

{{if weighted}}
{{else}}
// The sum over listed columns, in a panel whose rows begin at a number.
fn listed(first: u32, end: u32, lane: u32) -> f32 {
    var sum = 0.0;
    for (var at = first; at < end; at++) {
        let place = (places[at >> 2u] >> ((at & 3u) * 8u)) & 255u;
        sum += panel[place * LANES + lane];
    }
    return sum;
}
{{end}}

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let number = group.y * uniforms[0].z + group.x;
    if number >= uniforms[0].x * uniforms[0].y {
        return;
    }
    let chunk = uniforms[0].w + number / uniforms[0].y;
    let batch = chunk / uniforms[1].x;
    let first_row = (chunk % uniforms[1].x) * CHUNK;
    let end_row = min(first_row + CHUNK, uniforms[1].y);
    let row = first_row + (number % uniforms[0].y) * LINES + thread / LANES;
    let split = group.z / TILES;
    let first_k = (group.z % TILES) * LANES;
    let lane = thread % LANES;
    let own = thread < LINES * LANES && row < end_row && first_k + lane < K;
    let line = batch * uniforms[1].y + row - uniforms[2].w;

    {{if pairs}}
    for (var i = thread; i < LANES; i += THREADS) {
        var s = 0u;
        var t = min(first_k + i, K - 1u);
        while t >= LATENT - s {
            t -= LATENT - s;
            s++;
        }
        pairs[i] = vec2<u32>(s, s + t);
    }
    {{end}}
    let end_block = min((split + 1u) * uniforms[2].x, uniforms[1].w);
    {{if roles}}
    var sums = vec4<f32>();
    {{else}}
    var sum = 0.0;
    {{end}}
    for (var block = split * uniforms[2].x; block < end_block; block++) {
        let first_column = batch * uniforms[1].z + block * BLOCK;
        let count = min(BLOCK, uniforms[1].z - block * BLOCK);
        workgroupBarrier();
        for (var i = thread; i < count * LANES; i += THREADS) {
            {{if pairs}}
            let row = (first_column + i / LANES) * LATENT;
            let pair = pairs[i % LANES];
            panel[i] = columns[row + pair.x] * columns[row + pair.y];
            {{else}}
            let k = min(first_k + i % LANES, K - 1u);
            panel[i] = columns[(first_column + i / LANES) * K + k];
            {{end}}
        }
        workgroupBarrier();
        if own {
            {{if weighted}}
            let first = (block * uniforms[2].z + line) * BLOCK;
            var part = 0.0;
            for (var i = 0u; i < count; i++) {
                part = fma(weights[first + i], panel[i * LANES + lane], part);
            }
            sum += part;
            {{else}}
            {{include role_head}}
            {{if roles}}
            sums += vec4<f32>(
                listed(ends.x, ends.y, lane),
                listed(ends.y, ends.z, lane),
                listed(ends.z, ends.w, lane),
                listed(ends.w, end_place, lane),
            );
            {{else}}
            // What is taken off the sum over all, or the training entries themselves.
            let takes_off = implied == 1u;
            sum += listed(
                select(ends.y, ends.x, takes_off),
                select(ends.z, end_place, takes_off),
                lane,
            );
            {{end}}
            {{end}}
        }
    }
    if own {
        let slots = split * $slots * uniforms[2].z;
        let k = first_k + lane;
        {{if roles}}
        partials[(slots + line) * K + k] = sums.x;
        partials[(slots + uniforms[2].z + line) * K + k] = sums.y;
        partials[(slots + 2u * uniforms[2].z + line) * K + k] = sums.z;
        partials[(slots + 3u * uniforms[2].z + line) * K + k] = sums.w;
        {{else}}
        partials[(slots + line) * K + k] = sum;
        {{end}}
    }
}
