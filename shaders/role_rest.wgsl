// What the columns that a line lists leave of all columns: the sum over the entries of the role that is not
// listed. Leaves the sums over training entries, and sums of predictions for each role. A thread for
// every number of a line. Where hardly anything is left of the sum over all, its digits are lost: there the
// columns that are not listed are added up.
{{if pairs}}
//
// The numbers are those of a symmetric matrix over the latent indices, of which the sums have one half.
{{end}}
//
// uniforms: as in role_sums.wgsl, then
//           [workgroups in x, place of the losses, bits of what predictions are multiplied with, 0]
// totals:   the sums of V over all columns, by batch and number
// sums:     by line and number, over all lines
// rows:     what the sums are multiplied with for predictions, likewise

// Numbers of a line here, and of its sums.
const K = $k;
const WIDTH = $width;
{{if pairs}}
const LATENT = $latent;
{{end}}
const THREADS = 64u;
const BLOCK = $block;
// Where less than this is left, the digits of single precision are lost.
const LOST = 0.015625;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, 4>;
@group(0) @binding(1) var<storage, read> columns: array<f32>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read> heads: array<u32>;
@group(0) @binding(4) var<storage, read> partials: array<f32>;
@group(0) @binding(5) var<storage, read> totals: array<f32>;
@group(0) @binding(6) var<storage, read_write> sums: array<f32>;
{{if losses}}
@group(0) @binding(7) var<storage, read> rows: array<f32>;
@group(0) @binding(8) var<storage, read_write> losses: array<f32>;

var<workgroup> loss_sums: array<vec3<f32>, THREADS>;
{{end}}

{{if pairs}}
// Where the sums have a number.
fn place(k: u32) -> u32 {
    let s = min(k / LATENT, k % LATENT);
    let t = max(k / LATENT, k % LATENT);
    return s * (2u * LATENT - s + 1u) / 2u + t - s;
}

// A number of V at a column, and likewise of what predictions are made of.
fn term(column: u32, k: u32) -> f32 {
    return columns[column * LATENT + k / LATENT] * columns[column * LATENT + k % LATENT];
}
{{if losses}}
fn of_line(line: u32, k: u32) -> f32 {
    return rows[line * LATENT + k / LATENT] * rows[line * LATENT + k % LATENT];
}
{{end}}
{{else}}
fn place(k: u32) -> u32 {
    return k;
}

fn term(column: u32, k: u32) -> f32 {
    return columns[column * K + k];
}
{{if losses}}
fn of_line(line: u32, k: u32) -> f32 {
    return rows[line * K + k];
}
{{end}}
{{end}}

// The sum over the columns that a line does not list, one after another.
fn anew(line: u32, batch: u32, k: u32) -> f32 {
    var total = 0.0;
    for (var block = 0u; block < uniforms[1].w; block++) {
        {{include role_head}}
        // A bit for every column of the block that is listed.
        var bits = array<u32, 8>();
        for (var at = begin; at < end_place; at++) {
            let column = (places[at >> 2u] >> ((at & 3u) * 8u)) & 255u;
            bits[column >> 5u] |= 1u << (column & 31u);
        }
        let first_column = batch * uniforms[1].z + block * BLOCK;
        let count = min(BLOCK, uniforms[1].z - block * BLOCK);
        var sum = 0.0;
        for (var column = 0u; column < count; column++) {
            if ((bits[column >> 5u] >> (column & 31u)) & 1u) == 0u {
                sum += term(first_column + column, k);
            }
        }
        total += sum;
    }
    return total;
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let workgroup = group.y * uniforms[3].x + group.x;
    let number = workgroup * THREADS + thread;
    {{if losses}}
    var loss = vec3<f32>();
    {{end}}
    if number < uniforms[2].z * K {
        let line = number / K;
        let k = number % K;
        let own = place(k);
        let full = uniforms[2].w + line;
        let batch = full / uniforms[1].y;
        // The same in all blocks.
        let implied = heads[3u * line + 1u] >> 30u;
        let whole = totals[batch * K + k];
        {{if roles}}
        var roles = vec4<f32>();
        for (var split = 0u; split < uniforms[2].y; split++) {
            let slots = split * 4u * uniforms[2].z + line;
            roles += vec4<f32>(
                partials[slots * WIDTH + own],
                partials[(slots + uniforms[2].z) * WIDTH + own],
                partials[(slots + 2u * uniforms[2].z) * WIDTH + own],
                partials[(slots + 3u * uniforms[2].z) * WIDTH + own],
            );
        }
        var left = whole - (roles.x + roles.y + roles.z + roles.w);
        if left < LOST * whole {
            left = anew(line, batch, k);
        }
        roles = select(roles, vec4<f32>(left), vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(implied));
        sums[full * K + k] = roles.y;
        {{else}}
        var listed = 0.0;
        for (var split = 0u; split < uniforms[2].y; split++) {
            listed += partials[(split * uniforms[2].z + line) * WIDTH + own];
        }
        if implied == 1u {
            let left = whole - listed;
            if left < LOST * whole {
                listed = anew(line, batch, k);
            } else {
                listed = left;
            }
        }
        sums[full * K + k] = listed;
        {{end}}
        {{if losses}}
        loss = roles.yzw * of_line(full, k) * bitcast<f32>(uniforms[3].z);
        {{end}}
    }
    {{if losses}}
    {{include reduce_losses}}
    {{end}}
}
