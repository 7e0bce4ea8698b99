"""The cases by their names, in the order of the table."""

from functools import partial

from dense import make_dense_counts, make_dense_nmf
from problems import make_comm, make_counts_list, make_dense_cp, make_sparse_nmf
from uber import make_uber

CASES = {
    "uber-kl": partial(make_uber, alpha=1.0, beta=0.0),
    "uber-kl-splits": partial(make_uber, alpha=1.0, beta=0.0, splits=True),
    "uber-0.7-0": partial(make_uber, alpha=0.7, beta=0.0),
    "uber-0.7-0-splits": partial(make_uber, alpha=0.7, beta=0.0, splits=True),
    "uber-1.3-1": partial(make_uber, alpha=1.3, beta=1.0),
    "uber-1.3-1-splits": partial(make_uber, alpha=1.3, beta=1.0, splits=True),
    "sklearn-nmf": partial(make_sparse_nmf, solver="mu"),
    "sklearn-cd": partial(make_sparse_nmf, solver="cd"),
    "rcppml": partial(make_sparse_nmf, solver="rcppml"),
    "nmf-rs": partial(make_dense_nmf, module="nmf_rs", title="nmf-rs", runner="nmf_rs"),
    "nnfac-nmf": partial(make_dense_nmf, module="nn_fac", title="nn-fac", runner="nnfac_nmf"),
    "nmf-torch": partial(make_dense_nmf, module="nmf", title="nmf-torch", runner="nmf_torch", euclid=True),
    "tensorly-cp": partial(make_dense_cp, module="tensorly", title="tensorly", runner="tensorly_hals"),
    "nnfac-cp": partial(make_dense_cp, module="nn_fac", title="nn-fac", runner="nnfac_ntf"),
    "pyttb-apr": partial(make_counts_list, module="pyttb", runner="pyttb_apr", goals=(2, 5, 20)),
    "pyttb-apr-tiny": partial(
        make_dense_counts, module="pyttb", title="pyttb", runner="pyttb_apr", shape=(40, 30, 20), rank=5,
        goals=(2, 20, 200)),
    "pygenten": partial(make_counts_list, module="pygenten", runner="pygenten_sgd", goals=(2, 5)),
    "comm-tucker": partial(make_comm, tucker=True),
    "comm-cp": partial(make_comm, tucker=False),
}
