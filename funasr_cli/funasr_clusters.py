"""FunASR's clusters of windows, for comparison with it.

Source: FunASR 1.4.16 ``funasr/models/campplus/cluster_backend.py`` (``ClusterBackend``), which computes with
scikit-learn, SciPy and UMAP, as this does. What differs: its random numbers have no seed; here, the seed is 0, and
there is one thread. Where HDBSCAN finds only noise, FunASR ends with an error; here, all windows are one speaker.
If fewer speakers are asked for than there are unconnected parts of the graph, the eigenvectors are arbitrary: then
FunASR's labels depend on the number of its threads.
"""

import numpy as np

from funasr_cli.errors import SetupError
from funasr_cli.extras import missing, to_add

FEWEST_WINDOWS = 20  # of fewer, all are one speaker
MANY_WINDOWS = 2048  # from which on the matrix of all pairs is not computed
NEIGHBOURS, KEPT_SHARE = 6, 0.022  # of each row of that matrix: at least as many, or this share
MOST_SPEAKERS = 15
MERGED_FROM = 0.78  # cosine of the means of two speakers who are one
SEED = 0
UMAP = {"n_neighbors": 20, "min_dist": 0.0, "n_components": 60, "metric": "cosine"}
HDBSCAN = {"min_samples": 10, "min_cluster_size": 10, "allow_single_cluster": True, "copy": True}


def require_libraries() -> None:
    """Raise a `SetupError` if a library is missing that `cluster` may need."""
    if absent := missing("sklearn", "umap"):
        message = "--speaker-method funasr needs packages that are not installed"
        raise SetupError(message, to_add(*absent), code="extra-missing")


def cluster(vectors: np.ndarray, number: int | None = None) -> np.ndarray:
    """Return the cluster (windows,) of each window. The numbers of clusters have no order.

    Args:
        vectors: (windows, width) float32 embeddings in order of time.
        number: of speakers; None finds it out. It has no effect on fewer than `FEWEST_WINDOWS`.
    """
    if len(vectors) < FEWEST_WINDOWS:
        return np.zeros(len(vectors), int)
    from sklearn.cluster import k_means  # loads the libraries that the limit below is for
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(1):  # so that no bit depends on the number of cores
        if len(vectors) < MANY_WINDOWS:
            labels = _spectral(vectors, number)
        elif number is None:
            labels = _dense(vectors)
        else:
            labels = k_means(normalize(vectors), number, random_state=SEED, n_init=10)[1]
    return labels if number is not None else _merged(labels, vectors)


def _spectral(vectors: np.ndarray, number: int | None) -> np.ndarray:
    """Cluster the eigenvectors of the Laplacian of a graph that connects similar windows."""
    from scipy.linalg import eigh
    from sklearn.cluster import k_means
    from sklearn.metrics.pairwise import cosine_similarity

    alike = cosine_similarity(vectors)  # (windows, windows)
    dropped = int((1 - max(KEPT_SHARE, NEIGHBOURS / len(alike))) * len(alike))
    np.put_along_axis(alike, np.argsort(alike, axis=1)[:, :dropped], 0, axis=1)
    graph = 0.5 * (alike + alike.T)
    np.fill_diagonal(graph, 0)
    values, eigenvectors = eigh(np.diag(np.abs(graph).sum(axis=1)) - graph)
    if number is None:
        number = int(np.diff(values[: MOST_SPEAKERS + 1].astype(float)).argmax()) + 1
    return k_means(eigenvectors[:, :number], number, random_state=SEED)[1]


def _dense(vectors: np.ndarray) -> np.ndarray:
    """Find dense regions of a projection to fewer dimensions; noise is -1."""
    from sklearn.cluster import HDBSCAN as Regions
    from umap import UMAP as Projection

    projection = Projection(**UMAP, random_state=SEED, n_jobs=1)
    return Regions(**HDBSCAN).fit_predict(projection.fit_transform(vectors))


def _merged(labels: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Merge the two speakers whose means are most alike, until none are alike enough. Noise stays apart."""
    labels = labels.copy()
    while labels.max() > 0:
        means = np.stack([vectors[labels == speaker].mean(axis=0) for speaker in range(labels.max() + 1)])
        units = means / np.linalg.norm(means, axis=1, keepdims=True)
        pairs = np.triu(units @ units.T, 1)  # (speakers, speakers)
        kept, gone = np.unravel_index(pairs.argmax(), pairs.shape)
        if pairs[kept, gone] < MERGED_FROM:
            break
        labels[labels == gone] = kept
        labels[labels > gone] -= 1
    return labels
