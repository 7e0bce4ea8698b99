{{if grouped}}
step = clamp(moved, LEAST, MOST);
{{else}}
// Only what is not finite is brought back to the interval.
if (bitcast<u32>(moved) & 0x7f800000u) != 0x7f800000u {
    step = moved;
} else {
    step = MOST;
}
{{end}}
