// Where the output `rest` is in out, a and b.
var at = uniforms[1].xyz;
for (var axis = uniforms[0].y; axis > 0u; axis--) {
    let size = uniforms[axis + 2u];
    at += (rest % size.x) * size.yzw;
    rest /= size.x;
}
