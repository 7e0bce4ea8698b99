// The lanes' sums are added pairwise; the first lane has the total.
for (var half = LANES / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if lane < half {
        lane_values[thread] += lane_values[thread + half];
    }
}
