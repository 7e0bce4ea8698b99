steps[at] = 1.0;
powers[at] = factors[at];
powers[at + uniforms.w] = factors[at];
// x * ln(x) at a step of 1.
powers[at + 2u * uniforms.w] = 0.0;
