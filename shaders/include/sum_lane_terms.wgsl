var total = 0.0;
var term = lane;
while term < terms {
    // Sums of at most 64 terms, so that rounding does not grow with their number.
    var sum = 0.0;
    for (var i = 0u; i < 64u && term < terms; i++) {
        {{include term_axes}}
        {{include add_term}}
        term += LANES;
    }
    total += sum;
}
