// Where the places of each role begin in the list of a line's block, and where the last end; and the role
// that the line does not list.
let head = 3u * (block * uniforms[2].z + line);
let counts = heads[head + 1u];
let more = heads[head + 2u];
let implied = counts >> 30u;
let begin = heads[head];
let ends = vec4<u32>(
    begin,
    begin + (counts & 0x3ffu),
    begin + (counts & 0x3ffu) + ((counts >> 16u) & 0x3ffu),
    begin + (counts & 0x3ffu) + ((counts >> 16u) & 0x3ffu) + (more & 0x3ffu),
);
let end_place = ends.w + (more >> 16u);
