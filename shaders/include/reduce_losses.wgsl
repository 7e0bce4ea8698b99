// The workgroup's losses are added pairwise and written by the first thread.
loss_sums[thread] = $own_loss;
for (var half = THREADS / 2u; half > 0u; half >>= 1u) {
    workgroupBarrier();
    if thread < half {
        loss_sums[thread] += loss_sums[thread + half];
    }
}
if thread == 0u {
    let result = 3u * ($loss_place);
    losses[result + 0u] = loss_sums[0].x;
    losses[result + 1u] = loss_sums[0].y;
    losses[result + 2u] = loss_sums[0].z;
}
