// `moved` is the root of rise x^e1 + penalty_gradient x^e2 = fall x^e0: the minimum over the step x of
// a majorizer of powers and a penalty.
{{if falling}}
let fall = b;
let rise = a;
{{else}}
let fall = a;
let rise = b;
{{end}}
{{if gradient_with_fall}}
// e2 = e0: the penalty's term is taken off the other one.
let left = fall - penalty_gradient;
if left <= 0.0 {
    moved = 0.0;
} else if rise <= 0.0 {
    moved = MOST;
} else {
    let quotient = left / rise;
    moved = $root;
}
{{else}}
if fall <= 0.0 {
    moved = 0.0;
} else if rise <= 0.0 && penalty_gradient <= 0.0 {
    moved = MOST;
{{if gradient_with_rise}}
// e2 = e1: the terms are added.
} else {
    let quotient = fall / (rise + penalty_gradient);
    moved = $root;
}
{{end}}
{{if quadratic}}
// A quadratic in one of the powers, without the difference that cancels, and with the root of a sum of
// squares that do not overflow.
} else {
    let root = 2.0 * sqrt($square) * sqrt(fall);
    let larger = max($linear, root);
    let part = min($linear, root) / larger;
    let quotient = 2.0 * fall / ($linear + larger * sqrt(1.0 + part * part));
    moved = $root;
}
{{end}}
{{if newton}}
} else if rise <= 0.0 {
    let q2 = fall / penalty_gradient;
    moved = $gradient_root;
} else if penalty_gradient <= 0.0 {
    let q1 = fall / rise;
    moved = $rise_root;
} else {
    let q1 = clamp(fall / rise, 1e-37, 1e37);
    let q2 = clamp(fall / penalty_gradient, 1e-37, 1e37);
    // Where one of the terms alone is as large as the right side; the root is at most a
    // little below the lesser of them.
    let l1 = $log_q1;
    let l2 = $log_q2;
    let x1 = exp2(min(0.0, $apart1));
    let x2 = exp2(min(0.0, $apart2));
    var u = 0.0;
    for (var n = 0u; n < NEWTON_STEPS; n++) {
        let y1 = x1 * exp($u1);
        let y2 = x2 * exp($u2);
        u -= log(y1 + y2) * (y1 + y2) / ($derivative1 + $derivative2);
    }
    moved = select($gradient_root, $rise_root, l1 <= l2) * exp(u);
}
{{end}}
{{end}}
