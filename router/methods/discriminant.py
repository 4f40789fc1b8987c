"""A linear discriminant (Fisher 1936) on embeddings: which group a query belongs to."""

import numpy as np

from router.core import FloatArray, IntArray

ROUND = 0.1
"""Weight of a spherical covariance beside the measured one."""


def discriminant(embeddings: FloatArray, labels: IntArray) -> tuple[FloatArray, FloatArray]:
    """Weights [dimension, groups] and intercept [groups] for groups that are equally frequent.

    Args:
        embeddings: [n, dimension].
        labels: [n] group of each, every number from 0 to the highest at least once.
    """
    points = embeddings.astype(np.float64)
    members = np.eye(int(labels.max()) + 1)[labels]
    centres = members.T @ points / members.sum(axis=0)[:, None]
    apart = points - centres[labels]
    spread = apart.T @ apart / len(apart)
    width = len(spread)
    # Towards a spherical covariance (Friedman 1989), and never singular: few queries may span little.
    round_ = max(float(np.trace(spread)), 1e-3) / width
    weights = np.linalg.solve(spread + ROUND * round_ * np.eye(width), centres.T)
    return weights.astype(np.float32), -0.5 * (centres.T * weights).sum(axis=0)


def posterior(embeddings: FloatArray, weights: FloatArray, intercept: FloatArray) -> FloatArray:
    """Probability of each group, [n, groups]."""
    values = embeddings @ weights + intercept
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    shares: FloatArray = raised / raised.sum(axis=1, keepdims=True)
    return shares
