{{if two_inputs}}
sum = fma($a[place.x], $b[place.y], sum);
{{end}}
{{if one_input}}
sum += $a[place.x];
{{end}}
{{if no_input}}
sum += 1.0;
{{end}}
