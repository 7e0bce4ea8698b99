// `moved` is the root of b ln x - a + penalty_gradient x^q = 0: the minimum over the step x of a
// majorizer with a logarithm and a penalty.
{{if gradient_constant}}
// q = 0.
let left = a - penalty_gradient;
if b > 0.0 {
    moved = exp(clamp(left / b, -80.0, 80.0));
} else if left > 0.0 {
    moved = MOST;
} else if left < 0.0 {
    moved = 0.0;
}
{{else}}
if b <= 0.0 {
    if a <= 0.0 {
        moved = 0.0;
    } else if penalty_gradient <= 0.0 {
        moved = MOST;
    } else {
        let quotient = a / penalty_gradient;
        moved = $root;
    }
} else if penalty_gradient <= 0.0 {
    moved = exp(clamp(a / b, -80.0, 80.0));
} else {
    // With t = q ln(moved) + shift: t + exp(t) = s, the logarithm of Lambert's W.
    let quotient = clamp(a / b, -1e30, 1e30);
    let shift = log(clamp($q * (penalty_gradient / b), 1e-37, 1e37));
    let s = $q * quotient + shift;
    var power = 0.0;
    if s > 1.0 {
        // As logarithms of both sides, which is nearly straight there.
        var t = log(s);
        for (var n = 0u; n < NEWTON_STEPS; n++) {
            t -= (t - log(s - t)) * (s - t) / (s - t + 1.0);
        }
        power = (t - shift) / $q;
    } else {
        var t = min(s, 0.0);
        for (var n = 0u; n < NEWTON_STEPS; n++) {
            let e = exp(t);
            t -= (t + e - s) / (1.0 + e);
        }
        // Not the difference of t and shift, which cancels where the penalty is small.
        power = quotient - exp(t) / $q;
    }
    moved = exp(clamp(power, -80.0, 80.0));
}
{{end}}
