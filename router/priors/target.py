"""A policy from priors as the shrinkage target of training on outcomes."""

import numpy as np

from router.core import FloatArray, IntArray, QueryBatch
from router.data.dataset import Dataset
from router.errors import InputError
from router.methods.prior import PriorRouter
from router.methods.shrunk import Target
from router.policy import Policy
from router.priors.update import Belief


def target(
    policy: Policy, belief: Belief, outcomes: Dataset, embeddings: FloatArray, folds: IntArray
) -> Target:
    """What is expected of the outcomes' experts by priors, joined with the outcomes.

    Args:
        policy: made from priors.
        belief: of the policy's experts before any outcome.
        outcomes: of the same experts.
        embeddings: [n, dimension] of their queries, by the policy's encoder.
        folds: [n] fold of each query.

    Raises:
        InputError: the policy is not one from priors, or has other experts.
    """
    method = policy.method
    if not isinstance(method, PriorRouter):
        raise InputError(f"the target must be a policy from priors, found method {method.name!r}")
    if set(policy.pool.names) != set(outcomes.pool.names):
        raise InputError(
            f"the target has the experts {', '.join(policy.pool.names)}, "
            f"the outcomes {', '.join(outcomes.pool.names)}"
        )
    columns = [policy.pool.column(name) for name in outcomes.pool.names]
    members = method.membership(embeddings)
    quality = np.full((len(outcomes), len(columns)), np.nan)
    quality[:, columns] = outcomes.quality

    def joined(rows: IntArray) -> PriorRouter:
        after = belief.after(members[rows], quality[rows]).mean.T[:, columns]
        return method.moved(np.clip(after, 0.0, 1.0))

    batch = QueryBatch(outcomes.texts, embeddings)
    apart = np.empty((len(outcomes), len(columns)))
    for fold in np.unique(folds):
        outside = np.flatnonzero(folds == fold)
        apart[outside] = joined(np.flatnonzero(folds != fold)).score(batch.take(outside))
    return Target(joined(np.arange(len(outcomes))), apart)
