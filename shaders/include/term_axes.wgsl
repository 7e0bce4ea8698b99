var place = at.yz;
var index = term;
for (var axis = uniforms[0].z; axis > 0u; axis--) {
    let size = uniforms[first_summed + axis - 1u];
    place += (index % size.x) * size.zw;
    index /= size.x;
}
