// The fused dense pass (fused MTTKRP): numerator, denominator and losses in one reading of the data.
//
// A thread owns a row of the data tile: its row of the output operand R is in registers, with all K
// sums of numerator and denominator for it. It walks over the columns, of which the workgroup shares
// a tile of products C: y = sum_k R[k] C[k]; then a, b and the loss of the entry; then N[k] += a C[k],
// D[k] += b C[k]. Nothing of the size of the data is written.
//
// A workgroup is ROWS rows by SLICES slices of the columns. Its z index is the split of the reduction
// (reduced batch indices and columns) that it walks over; contract.wgsl adds the sums of the splits
// (split-K), in a fixed order.
//
// Words after a dollar sign are filled in for each plan.

const ROWS = $rows;       // rows of a workgroup
const SLICES = $slices;   // threads that share a row
const THREADS = $threads;
const TILE = $tile;       // columns at a time
const K = $k;             // contracted dimension
const BLOCKS_K = $blocks_k; // vectors of four that hold a contracted dimension

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, $uniforms>;
@group(0) @binding(1) var<storage, read> tensors: array<f32>;
@group(0) @binding(2) var<storage, read> values: array<u32>;
$bindings

var<workgroup> tile: array<vec4<f32>, $tile_vectors>;
var<workgroup> column_offsets: array<u32, TILE>;
{{if staged}}
var<workgroup> row_offsets: array<u32, ROWS>;
$stages
{{end}}
{{if losses}}
var<workgroup> loss_sums: array<vec3<f32>, THREADS>;
{{end}}

// Where an index is, in the data and in the tensors that have it.
$offsets

// The product of the column operands' tensors at a contracted index.
$column_product

// The product of the output operand's tensors, and of its co-operands alone.
$row_products

// An entry of the data.
$entry

// a, b and the loss, as far as they are wanted.
$entry_terms

@compute @workgroup_size($threads)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let block = group.y * $fold + group.x;
    if block >= $block_count {
        return;
    }
    let local_row = thread % ROWS;
    let slice = thread / ROWS;
    let batch_index = block / $row_blocks;
    let batch = batch_at(batch_index);
    let row_index = (block % $row_blocks) * ROWS + local_row;
    let live = row_index < $row_count;
    let row = row_at(min(row_index, $row_count - 1u));
    {{if staged}}
    if thread < ROWS {
        row_offsets[thread] = row.data;
    }
    {{end}}
    let place = ((group.z * SLICES + slice) * $batch_count + batch_index) * $output_k * $row_count + row_index;
    $registers
    {{if losses}}
    var loss = vec3<f32>();
    {{end}}
    {{if moving_sums}}
    if live {
        $clear_partials
    }
    {{end}}
    let first = group.z * $split_units;
    let end = min(first + $split_units, $reduced_count * $column_blocks);
    {{if fixed}}
    $load_rows
    {{end}}
    for (var unit = first; unit < end; unit++) {
        let reduced = reduced_at(unit / $column_blocks);
        let start = (unit % $column_blocks) * TILE;
        let count = min(u32(TILE), $column_count - start);
        {{if moving}}
        if unit == first || unit % $column_blocks == 0u {
            {{if sums}}
            if unit != first {
                let before = reduced_at(unit / $column_blocks - 1u);
                if live {
                    $store_sums
                }
                $reset_sums
            }
            {{end}}
            $load_rows
        }
        {{end}}
        workgroupBarrier();
        let near = thread % TILE;
        // Those past the end are read, and not worked on.
        let column = column_at(start + min(near, count - 1u));
        if thread < TILE {
            column_offsets[near] = column.data;
        }
        for (var k = thread / TILE; k < BLOCKS_K; k += THREADS / TILE) {
            tile[near * BLOCKS_K + k] = column_vector(batch, reduced, column, 4u * k);
        }
        workgroupBarrier();
        {{if staged}}
        $stage_entries
        workgroupBarrier();
        {{end}}
        {{if losses}}
        // A tile's sum of its own: rounding does not grow with the length of the split.
        var total = loss;
        loss = vec3<f32>();
        {{end}}
        {{if unrolled}}
        for (var n = $unroll * slice; n + $unroll <= count; n += $unroll_step) {
            $unrolled_entries
        }
        for (var n = count / $unroll * $unroll + slice; n < count; n += SLICES) {
            $one_entry
        }
        {{else}}
        for (var n = slice; n < count; n += SLICES) {
            $one_entry
        }
        {{end}}
        {{if losses}}
        loss += total;
        {{end}}
    }
    {{if moving_sums}}
    if first < end {
        let before = reduced_at((end - 1u) / $column_blocks);
        if live {
            $store_sums
        }
    }
    {{end}}
    {{if fixed_sums}}
    if live {
        $store_sums
    }
    {{end}}
    {{if losses}}
    {{include reduce_losses}}
    {{end}}
}
