let inner = own % WIDTH;
let task = uniforms[0].z + 3u * (own / WIDTH % uniforms[0].x);
let half = own / WIDTH / uniforms[0].x;
let end = $index[task + 2u];
var total = 0.0;
{{if folded}}
for (var fold = 0u; fold < $folds; fold++) {
    let k = $index[uniforms[1].w + inner * $folds + fold];
    {{include add_pieces}}
}
{{else}}
let k = inner;
{{include add_pieces}}
{{end}}
{{if rows}}
let at = uniforms[1].x + half * uniforms[1].y + $index[task] * uniforms[1].z + inner;
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
partials[half * uniforms[0].w + $index[task] * K + k] = total;
{{end}}
