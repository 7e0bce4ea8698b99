let theta = factors[at];
// An entry that is 0 stays so, whatever its step.
if theta > 0.0 {
    // The derivative of the penalty, by the curvature constant of the loss.
    let penalty_gradient = $penalty_gradient;
    var moved = 1.0;
    {{if penalized_log}}
    {{include solve_log}}
    {{else}}
    {{include solve_power}}
    {{end}}
    {{include finish_step}}
}
