"""The reward model of the doubly robust estimate: one for all policies that are compared.

A ridge regression on the query and the action, cross-fitted by conversation: no decision is predicted by a
model that saw its conversation, and no candidate's own scores enter.
"""

import numpy as np

from router.core import FloatArray, IntArray
from router.learning.evidence import Evidence

FOLDS = 5
DIMENSIONS = 16
"""Principal components of the query's features."""
SHARED, OWN, INTERACTION = 1.0, 1.0, 10.0
"""Penalties: of the query's components, of each candidate's mean, of a candidate's own slopes."""


def cross_fitted(evidence: Evidence, *, seed: int = 0) -> FloatArray:
    """Predicted reward of every candidate for every decision, [n, candidates] in [0, 1]."""
    n, width = evidence.propensities.shape
    if not n:
        return np.zeros((0, width))
    queries = components(evidence.features)
    rows = _rows(queries, evidence.actions, width)
    penalty = _penalties(queries.shape[1], width)
    folds = _folds(evidence.units, seed)
    predicted = np.empty((n, width))
    parts = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    grams, moments, centres = [], [], []
    for part in parts:
        weighted = rows[part] * evidence.weights[part, None]
        grams.append(weighted.T @ rows[part])
        moments.append((weighted.sum(axis=0), weighted.T @ evidence.rewards[part]))
        centres.append((evidence.weights[part].sum(), evidence.weights[part] @ evidence.rewards[part]))
    gram = sum(grams, np.zeros_like(grams[0]))
    for fold, part in enumerate(parts):
        if not len(part):
            continue
        others = [number for number in range(FOLDS) if number != fold]
        total = sum(centres[number][0] for number in others)
        # With one conversation there is nothing else to learn from; its own mean then cancels out.
        mean = sum(centres[number][1] for number in others) / total if total else 0.5
        target = sum(
            (moments[number][1] - mean * moments[number][0] for number in others), np.zeros(rows.shape[1])
        )
        solved = np.linalg.solve(gram - grams[fold] + np.diag(penalty), target)
        predicted[part] = mean + _apply(solved, queries[part], width)
    return np.clip(predicted, 0.0, 1.0)


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


def _rows(queries: FloatArray, actions: IntArray, width: int) -> FloatArray:
    """The regression's rows: components, which action, and components of that action."""
    n, dimension = queries.shape
    rows = np.zeros((n, dimension + width + dimension * width))
    rows[:, :dimension] = queries
    rows[np.arange(n), dimension + actions] = 1.0
    own = rows[:, dimension + width :].reshape(n, width, dimension)
    own[np.arange(n), actions] = queries
    return rows


def _penalties(dimension: int, width: int) -> FloatArray:
    return np.concatenate(
        [np.full(dimension, SHARED), np.full(width, OWN), np.full(dimension * width, INTERACTION)]
    )


def _apply(solved: FloatArray, queries: FloatArray, width: int) -> FloatArray:
    dimension = queries.shape[1]
    shared = queries @ solved[:dimension]
    slopes = solved[dimension + width :].reshape(width, dimension)
    found: FloatArray = shared[:, None] + solved[dimension : dimension + width] + queries @ slopes.T
    return found


def _folds(units: IntArray, seed: int) -> IntArray:
    """A fold for each decision, [n]; a conversation is in one fold."""
    distinct, place = np.unique(units, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    folds: IntArray = order[place] % FOLDS
    return folds
