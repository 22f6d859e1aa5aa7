"""Run FunASR's own clustering on embeddings: CASES OUT.

Runs in the environment of the reference, without this package. CASES is an archive of arrays (windows, width),
whose names end with the number of speakers to ask for, 0 for none. FunASR's random numbers get the seed 0.
"""

import functools
import sys
from pathlib import Path

import numpy as np
import torch
from funasr.models.campplus.cluster_backend import ClusterBackend


def main() -> None:
    """Write the label of each window."""
    torch.set_num_threads(1)
    cases, out, found = np.load(sys.argv[1]), Path(sys.argv[2]), {}
    if any(len(cases[name]) > 2047 and name.endswith("-0") for name in cases.files):
        from umap import umap_  # takes many seconds

        umap_.UMAP = functools.partial(umap_.UMAP, random_state=0, n_jobs=1)
    for name in cases.files:
        np.random.seed(0)  # k-means takes it
        number = int(name.rpartition("-")[2]) or None
        found[name] = ClusterBackend()(torch.from_numpy(cases[name]), oracle_num=number)
    np.savez(out, **found)


if __name__ == "__main__":
    main()
