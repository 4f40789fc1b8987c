"""Choose the most informative queries for a new expert: spread over all queries, without duplicates.

k-means on the embeddings, one query for each cluster: the nearest to its centre. A stratified sample
(Neyman 1934) of the queries, so that a mean over it varies less than over a random one.
"""

import numpy as np

from router.core import FloatArray
from router.errors import InputError

MOST_CLUSTERED = 20_000
"""Queries that are clustered; of more, a sample that `seed` draws."""


def choose_probes(embeddings: FloatArray, *, count: int, seed: int) -> list[int]:
    """Rows of the chosen queries, ascending.

    Args:
        embeddings: [n, dimension], rows of unit length.
        count: how many; all when there are no more.
        seed: of the clustering and the sample.

    Raises:
        InputError: `count` is below 1, or there is no query.
    """
    if count < 1 or not len(embeddings):
        raise InputError(
            f"choosing probes needs a count from 1 and a query, found {count} of {len(embeddings)}"
        )
    if count >= len(embeddings):
        return list(range(len(embeddings)))
    from sklearn.cluster import MiniBatchKMeans

    rng = np.random.default_rng(seed)
    pool = np.sort(rng.permutation(len(embeddings))[:MOST_CLUSTERED])
    points = embeddings[pool].astype(np.float32)
    means = MiniBatchKMeans(count, random_state=seed, n_init=1, batch_size=4096).fit(points)
    distance = means.transform(points)[np.arange(len(points)), means.labels_]
    chosen: list[int] = []
    for cluster in np.unique(means.labels_):
        inside = np.flatnonzero(means.labels_ == cluster)
        chosen.append(int(pool[inside[distance[inside].argmin()]]))
    # Empty clusters and copies of one query leave fewer than `count`: fill up at random.
    left = np.setdiff1d(pool, chosen)
    chosen += rng.permutation(left)[: count - len(chosen)].tolist()
    return sorted(chosen)
