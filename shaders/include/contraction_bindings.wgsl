const AXES = $axes;

@group(0) @binding(0) var<uniform> uniforms: array<vec4<u32>, AXES + 3>;
@group(0) @binding(1) var<storage, read> a: array<f32>;
{{if two_inputs}}
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
{{else}}
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
{{end}}
