"""What a plan would have given on recorded outcomes, exactly, without calling anybody again."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from router.core import BoolArray, FloatArray, IntArray
from router.data.dataset import Dataset
from router.plans.acceptance import AcceptanceModel, features
from router.plans.plan import Plan
from router.plans.signals import Reading, at_hand, read, read_beginning, signals_of


@dataclass(frozen=True)
class Evidence:
    """The answers at hand of all plans with one `evidence_key`, row by row of the data set."""

    table: FloatArray  # [n, features]
    quality: FloatArray  # [n] measured quality of the answer at hand; NaN where one is missing
    cost_usd: FloatArray | None  # [n] of all members' answers
    known: BoolArray  # [n] every member's answer is recorded

    def take(self, rows: IntArray) -> "Evidence":
        """Only these rows, in this order."""
        cost = None if self.cost_usd is None else self.cost_usd[rows]
        return Evidence(self.table[rows], self.quality[rows], cost, self.known[rows])


@dataclass(frozen=True)
class Replayed:
    """A plan's outcomes; NaN where a member's or the `else` expert's outcome is missing."""

    p_right: FloatArray  # [n]
    accepted: FloatArray  # [n] 1 or 0
    quality: FloatArray  # [n]
    cost_usd: FloatArray | None  # [n]
    answer_quality: FloatArray  # [n] of the answer at hand, accepted or not

    def figures(self) -> dict[str, float | None]:
        """Means over the queries; the precision of accepted answers as measured and as predicted."""
        accepted = self.accepted == 1
        known = bool(accepted.any())
        return {
            "acceptance_rate": float(np.nanmean(self.accepted)),
            "precision": float(self.answer_quality[accepted].mean()) if known else None,
            "predicted_precision": float(self.p_right[accepted].mean()) if known else None,
            "quality": float(np.nanmean(self.quality)),
            "cost_usd": None if self.cost_usd is None else float(np.nanmean(self.cost_usd)),
        }


class Recording:
    """The recorded answers of a data set, each read once."""

    def __init__(self, outcomes: Dataset) -> None:
        self.outcomes = outcomes
        self._samples = (outcomes, *outcomes.samples)
        self._readings: dict[tuple[int, int], list[Reading | None]] = {}

    @property
    def has_responses(self) -> bool:
        """Whether any response is recorded: without them no plan can be replayed."""
        return "response" in self.outcomes.written

    @property
    def has_logprobs(self) -> bool:
        return "token_logprobs" in self.outcomes.written

    def samples_of(self, name: str) -> int:
        """Answers that are recorded of an expert on most of its queries."""
        column = self.outcomes.pool.column(name)
        first = np.isfinite(self.outcomes.quality[:, column]).sum()
        counts = [np.isfinite(sample.quality[:, column]).sum() for sample in self._samples]
        return int(sum(2 * count > first for count in counts)) if first else 0

    def evidence(self, plan: Plan, scores: FloatArray) -> Evidence:
        """The answers at hand of a plan; `else` and threshold have no effect.

        Args:
            plan: whose experts the data set holds.
            scores: [n, experts] of the data set's experts, by a method that did not see the row.
        """
        columns = [self.outcomes.pool.column(name) for name in plan.ask]
        parts = [(sample, column) for column in columns for sample in range(plan.samples)]
        found = [self._column(*part, plan.hold_tokens) for part in parts]
        qualities = np.stack([self._samples[sample].quality[:, column] for sample, column in parts])
        rows = list(zip(*found, strict=True))
        known = np.array([None not in row for row in rows]) & np.isfinite(qualities).all(axis=0)
        picked = np.zeros(len(rows), dtype=int)
        signals = []
        for row in np.flatnonzero(known):
            readings = [reading for reading in rows[row] if reading is not None]
            picked[row] = at_hand(plan, readings)
            column = columns[0 if plan.is_vote else picked[row]]
            signals.append(signals_of(plan, readings, score=float(scores[row, column])))
        blank = features([])
        table = np.full((len(rows), blank.shape[1]), np.nan)
        table[known] = features(signals)
        quality = np.where(known, qualities[picked, np.arange(len(rows))], np.nan)
        return Evidence(table, quality, self._cost(parts), known)

    def replay(self, plan: Plan, evidence: Evidence, p_right: FloatArray) -> Replayed:
        """The plan's outcomes, from the answers at hand and their probabilities [n] to be right."""
        last = self.outcomes.pool.column(plan.otherwise)
        accepted = np.where(evidence.known, p_right >= plan.at_least, np.nan)
        other = self.outcomes.quality[:, last]
        quality = np.where(accepted == 1, evidence.quality, np.where(accepted == 0, other, np.nan))
        quality = np.where(np.isfinite(other), quality, np.nan)
        costs, cost = self.outcomes.costs_usd, None
        if costs is not None and evidence.cost_usd is not None:
            cost = evidence.cost_usd + np.where(accepted == 1, 0.0, costs[:, last])
        return Replayed(p_right, accepted, quality, cost, evidence.quality)

    def _column(self, sample: int, column: int, hold_tokens: int | None) -> list[Reading | None]:
        key = (sample, column) if hold_tokens is None else (sample, column + hold_tokens * 100_000)
        if key not in self._readings:
            self._readings[key] = self._read(sample, column, hold_tokens)
        return self._readings[key]

    def _read(self, sample: int, column: int, hold_tokens: int | None) -> list[Reading | None]:
        if sample >= len(self._samples) or not self.has_responses:
            return [None] * len(self.outcomes)
        written = self._samples[sample].written
        blank = [None] * len(self.outcomes)
        texts, reasons, logprobs = (
            written[name][:, column] if name in written else blank
            for name in ("response", "finish_reason", "token_logprobs")
        )
        if hold_tokens is not None:
            return [None if values is None else read_beginning(values, hold_tokens) for values in logprobs]
        return [
            None if text is None else read(text, logprobs=values, finish_reason=reason)
            for text, reason, values in zip(texts, reasons, logprobs, strict=True)
        ]

    def _cost(self, parts: Sequence[tuple[int, int]]) -> FloatArray | None:
        costs = [self._samples[sample].costs_usd for sample, _ in parts]
        known = [
            values[:, column] for values, (_, column) in zip(costs, parts, strict=True) if values is not None
        ]
        return None if len(known) < len(parts) else np.sum(known, axis=0)


def replay(plan: Plan, outcomes: Dataset, model: AcceptanceModel, scores: FloatArray) -> Replayed:
    """One plan's outcomes.

    Args:
        plan: whose experts the data set holds, with their responses.
        outcomes: recorded.
        model: of the plan's acceptance.
        scores: [n, experts] of the data set's experts, as the policy scores them.
    """
    recording = Recording(outcomes)
    evidence = recording.evidence(plan, scores)
    return recording.replay(plan, evidence, model.p_right_features(evidence.table))
