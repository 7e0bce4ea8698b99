{{if multiply}}
let value = factors[at] * steps[at];
{{end}}
{{if keep}}
let value = factors[at];
{{end}}
{{if extrapolate}}
{{if along_line}}
// P + momentum (P - C) + relaxation (P - X), or 0 where that is negative: C is the anchor, the plain result
// before P, and X where the sweep began.
let before = anchor[at];
var value = factors[at];
anchor[at] = value;
let moved = value + weights.x * (value - before) + weights.y * (value - origin[at]);
if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {
    value = max(moved, 0.0);
}
{{else}}
// In log space: P * (P / C)^momentum * (P / X)^relaxation, where C is the anchor, the plain result
// before P, and X where the sweep began; what P is multiplied with is at least weights.z.
let before = anchor[at];
var value = factors[at];
anchor[at] = value;
let begun = origin[at];
if value > 0.0 && before > 0.0 && begun > 0.0 {
    let change = pow(value / before, weights.x) * pow(value / begun, weights.y);
    let moved = value * max(change, weights.z);
    if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {
        value = moved;
    }
}
{{end}}
{{end}}
factors[at] = value;
most = max(most, value);
// Not a comparison with infinity, which a compiler may take for impossible.
let bits = bitcast<u32>(value) & 0x7f800000u;
if bits == 0x7f800000u {
    atomicMax(&broken[0], $factor_number + 1u);
}
