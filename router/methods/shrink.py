"""Shrunk means, the common basis of the methods.

Shrinkage as in James and Stein (1961): an estimate from n observations is pulled towards its
prior as if the prior had been observed `strength` times.
"""

import numpy as np

from router.core import FloatArray, TrainingSet
from router.errors import OutcomesError

PRIOR_STRENGTH = 20.0


def global_means(quality: FloatArray) -> FloatArray:
    """Mean quality of every expert, [experts], shrunk a little towards the pool's mean.

    Raises:
        OutcomesError: an expert has no outcome at all.
    """
    seen = np.isfinite(quality)
    count = seen.sum(axis=0)
    if len(quality) == 0 or not count.all():
        raise OutcomesError(
            "every expert needs at least one outcome, found per column of the pool: "
            f"{', '.join(str(int(c)) for c in count)}"
        )
    total = np.where(seen, quality, 0.0).sum(axis=0)
    pool_mean = total.sum() / count.sum()
    strength = min(PRIOR_STRENGTH, float(count.min()))
    means: FloatArray = (total + strength * pool_mean) / (count + strength)
    return means


def filled(training: TrainingSet) -> FloatArray:
    """Quality with the global mean of the expert where nothing was measured, [n, experts]."""
    return np.where(np.isfinite(training.quality), training.quality, global_means(training.quality))
