"""The reward model of the doubly robust estimate: one for all policies that are compared.

A ridge regression on the query and the action, cross-fitted by conversation: no decision is predicted by a
model that saw its conversation, and no candidate's own scores enter.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from router.core import FloatArray, IntArray
from router.learning.evidence import Evidence

FOLDS = 5
DIMENSIONS = 16
"""Principal components of the query's features."""
SHARED, OWN, INTERACTION = 1.0, 10.0, 300.0
"""Penalties: of the query's components, of each candidate's mean, of a candidate's own slopes."""


def cross_fitted(evidence: Evidence, *, seed: int = 0) -> FloatArray:
    """Predicted reward of every candidate for every decision, [n, candidates] in [0, 1]."""
    n, width = evidence.propensities.shape
    if not n:
        return np.zeros((0, width))
    queries = components(evidence.features)
    rows = np.concatenate([np.ones((n, 1)), queries], axis=1)
    folds = _folds(evidence.units, seed)
    grams = np.zeros((FOLDS, width, rows.shape[1], rows.shape[1]))
    products = np.zeros((FOLDS, width, rows.shape[1]))
    weighted = rows * evidence.weights[:, None]
    for fold, action in np.unique(np.stack([folds, evidence.actions], axis=1), axis=0).tolist():
        part = np.flatnonzero((folds == fold) & (evidence.actions == action))
        grams[fold, action] = weighted[part].T @ rows[part]
        products[fold, action] = weighted[part].T @ evidence.rewards[part]
    predicted = np.empty((n, width))
    for fold in range(FOLDS):
        part = np.flatnonzero(folds == fold)
        others = np.arange(FOLDS) != fold
        model = _Ridge.fit(grams[others].sum(axis=0), products[others].sum(axis=0))
        predicted[part] = model.predict(rows[part])
    return np.clip(predicted, 0.0, 1.0)


@dataclass(frozen=True)
class _Ridge:
    """A mean, slopes that all candidates share, and a candidate's own difference from both."""

    mean: float
    shared: FloatArray  # [dimension]
    own: FloatArray  # [candidates, 1 + dimension]

    @classmethod
    def fit(cls, grams: FloatArray, products: FloatArray) -> Self:
        """Solve by blocks: the candidates meet in the shared slopes alone.

        Args:
            grams: [candidates, 1 + dimension, 1 + dimension] of a candidate's rows, the first column is 1.
            products: [candidates, 1 + dimension] of its rows with their rewards.
        """
        size = grams.shape[1]
        total = float(grams[:, 0, 0].sum())
        # With one conversation there is nothing else to learn from; its own mean then cancels out.
        mean = float(products[:, 0].sum()) / total if total else 0.5
        targets = products - mean * grams[:, :, 0]
        penalised = grams + np.diag([OWN, *[INTERACTION] * (size - 1)])
        coupling = grams[:, :, 1:]
        inner = np.linalg.solve(penalised, coupling)
        alone = np.linalg.solve(penalised, targets[:, :, None])[:, :, 0]
        # What the shared slopes explain beyond each candidate's own ones (a Schur complement).
        left = (coupling[:, 1:] - coupling.transpose(0, 2, 1) @ inner).sum(axis=0) + SHARED * np.eye(size - 1)
        right = (targets[:, 1:] - np.einsum("cij,ci->cj", coupling, alone)).sum(axis=0)
        shared = np.linalg.solve(left, right)
        return cls(mean, shared, alone - inner @ shared)

    def predict(self, rows: FloatArray) -> FloatArray:
        """Predicted rewards, [n, candidates]; the first column of the rows is 1."""
        found: FloatArray = self.mean + (rows[:, 1:] @ self.shared)[:, None] + rows @ self.own.T
        return found


def components(features: FloatArray) -> FloatArray:
    """The first principal components of features, scaled to a mean square of 1, [n, up to DIMENSIONS]."""
    if not features.shape[1]:
        return np.zeros((len(features), 0))
    centred = features.astype(np.float64) - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = np.argsort(values)[::-1][:DIMENSIONS]
    kept = kept[values[kept] > 1e-9]
    found: FloatArray = centred @ vectors[:, kept] / np.sqrt(values[kept])
    return found


def _folds(units: IntArray, seed: int) -> IntArray:
    """A fold for each decision, [n]; a conversation is in one fold."""
    distinct, place = np.unique(units, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    folds: IntArray = order[place] % FOLDS
    return folds
