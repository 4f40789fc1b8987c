"""What is expected of a new expert's mean quality beside experts that are known already."""

from collections.abc import Sequence

import numpy as np

from router.core import FloatArray
from router.priors.abilities import AbilityPrior
from router.priors.start import StartExpert
from router.priors.update import Belief

KNOWN = 0.02
"""Standard deviation of a measured mean quality."""
UNMODELLED = 0.07
"""Of what the prior does not know of: a user's queries are no benchmark of the catalogue."""


def expected_mean(
    prior: AbilityPrior, experts: Sequence[StartExpert], means: FloatArray, new: StartExpert
) -> tuple[float, float]:
    """The new expert's mean quality over a policy's queries, and its variance.

    The known experts' means show how difficult the queries are; kinds count equally.

    Args:
        prior: fitted on the catalogue.
        experts: those of the policy.
        means: [experts] their mean quality.
        new: the expert to add.
    """
    belief = Belief.of(prior.of([expert.facts for expert in (*experts, new)]))
    count, kinds = belief.mean.shape
    mean = belief.mean.mean(axis=1)
    covariance = belief.covariance.reshape(count, kinds, count, kinds).mean(axis=(1, 3))
    known = covariance[:-1, :-1] + KNOWN**2 * np.eye(count - 1)
    gain = np.linalg.solve(known, covariance[:-1, -1])
    found = float(mean[-1] + gain @ (means - mean[:-1]))
    left = float(covariance[-1, -1] - gain @ covariance[:-1, -1])
    return min(max(found, 0.0), 1.0), max(left, 0.0) + UNMODELLED**2
