// The largest of the workgroup's threads, for the first thread.
maxima[thread] = most;
for (var half = THREADS / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if thread < half {
        maxima[thread] = max(maxima[thread], maxima[thread + half]);
    }
}
