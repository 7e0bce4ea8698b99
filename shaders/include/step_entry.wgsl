{{if penalized}}
{{include penalized_step}}
{{end}}
{{if plain_power}}
// Where no observed entry touches the factor's entry, both are 0.
if a > 0.0 || b > 0.0 {
    var moved = $at_zero;
    if b <= 0.0 {
        moved = $at_infinity;
    } else if a > 0.0 {
        let quotient = a / b;
        moved = $power_of_quotient;
    }
    {{include finish_step}}
}
{{end}}
{{if plain_log}}
if b != 0.0 {
    let moved = exp(clamp(a / b, -80.0, 80.0));
    {{include finish_step}}
}
{{end}}
{{if lower}}
if factors[at] * step < constraint.y {
    step = constraint.y / factors[at];
}
{{end}}
{{if upper}}
if factors[at] * step > constraint.z {
    step = constraint.z / factors[at];
}
{{end}}
steps[at] = step;
{{if grouped_power}}
let x = factors[at];
powers[at] = $power_a;
powers[at + uniforms.w] = $power_b;
{{end}}
{{if grouped_log}}
let x = factors[at] * step;
powers[at] = x;
powers[at + uniforms.w] = x;
powers[at + 2u * uniforms.w] = x * log(step);
{{end}}
