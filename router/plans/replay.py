"""What a plan would have given on recorded outcomes, exactly, without calling anybody again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from router.core import BoolArray, FloatArray, IntArray
from router.data.dataset import Dataset
from router.plans.acceptance import AcceptanceModel, features
from router.plans.plan import Calls, Plan
from router.plans.signals import Reading, at_hand, read, read_beginning, signals_of


@dataclass(frozen=True)
class Evidence:
    """The answers at hand of all plans with one `evidence_key`, row by row of the data set."""

    table: FloatArray  # [n, features]
    quality: FloatArray  # [n] measured quality of the answer at hand; NaN where one is missing
    cost_usd: FloatArray | None  # [n] of all members' answers
    rejected_usd: FloatArray | None  # [n] the same where they are rejected: a held stream is aborted
    known: BoolArray  # [n] every member's answer is recorded

    def take(self, rows: IntArray) -> "Evidence":
        """Only these rows, in this order."""
        cost = None if self.cost_usd is None else self.cost_usd[rows]
        rejected = None if self.rejected_usd is None else self.rejected_usd[rows]
        return Evidence(self.table[rows], self.quality[rows], cost, rejected, self.known[rows])


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

    def is_longer(self, name: str, tokens: int) -> bool:
        """Whether most of an expert's answers are at least twice as long as so many tokens."""
        written = self.outcomes.written["token_logprobs"][:, self.outcomes.pool.column(name)]
        known = [len(values) for values in written if values is not None]
        return bool(known) and float(np.median(known)) >= 2 * tokens

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
        return Evidence(table, quality, self._cost(plan), self._cost(plan, plan.hold_tokens), known)

    def replay(self, plan: Plan, evidence: Evidence, p_right: FloatArray) -> Replayed:
        """The plan's outcomes, from the answers at hand and their probabilities [n] to be right."""
        last = self.outcomes.pool.column(plan.otherwise)
        accepted = np.where(evidence.known, p_right >= plan.at_least, np.nan)
        other = self.outcomes.quality[:, last]
        quality = np.where(accepted == 1, evidence.quality, np.where(accepted == 0, other, np.nan))
        quality = np.where(np.isfinite(other), quality, np.nan)
        costs, cost = self.outcomes.costs_usd, None
        if costs is not None and evidence.cost_usd is not None and evidence.rejected_usd is not None:
            otherwise = evidence.rejected_usd + costs[:, last]
            cost = np.where(np.isnan(accepted), np.nan, np.where(accepted == 1, evidence.cost_usd, otherwise))
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

    def calls_of(self, plan: Plan) -> Calls:
        """What a plan's calls take beside one complete answer of each member, on average."""
        tokens = self.outcomes.measured.get("completion_tokens")
        held = 1.0
        if plan.hold_tokens is not None and tokens is not None:
            known = tokens[:, self.outcomes.pool.column(plan.ask[0])]
            held = float(np.nanmean(np.minimum(1.0, plan.hold_tokens / np.maximum(known, 1))))
        single = self._cost(replace(plan, samples=1))
        accepted, rejected = self._cost(plan), self._cost(plan, plan.hold_tokens)
        if single is None or accepted is None or rejected is None or not np.nanmean(single):
            return Calls(float(plan.samples), float(plan.samples), held)
        whole = float(np.nanmean(single))
        return Calls(float(np.nanmean(accepted)) / whole, float(np.nanmean(rejected)) / whole, held)

    def _cost(self, plan: Plan, tokens: int | None = None) -> FloatArray | None:
        """US$ of the members' answers [n], or of their first tokens.

        The prompt of a vote counts once where tokens and prices are known: it is one request.
        """
        columns = [self.outcomes.pool.column(name) for name in plan.ask]
        completed = [
            sample.measured.get("completion_tokens") for sample in self._samples[: plan.samples]
        ]  # of each sample, [n, experts]
        prices = [self.outcomes.pool[name].price for name in plan.ask]
        priced = "cost_usd" not in self.outcomes.measured and None not in prices
        if not priced or len(completed) < plan.samples or any(one is None for one in completed):
            return self._measured_cost(plan.samples, columns)
        prompt = self.outcomes.measured.get("prompt_tokens", np.zeros(self.outcomes.quality.shape))
        spent = np.zeros(len(self.outcomes))
        for column, price in zip(columns, prices, strict=True):
            counts = [one[:, column] for one in completed if one is not None]
            written = np.sum([np.minimum(count, tokens or np.inf) for count in counts], axis=0)
            if price is not None:
                spent = spent + (prompt[:, column] * price.input + written * price.output) / 1e6
        return spent

    def _measured_cost(self, samples: int, columns: Sequence[int]) -> FloatArray | None:
        costs = [sample.costs_usd for sample in self._samples[:samples]]
        known = [values[:, column] for values in costs if values is not None for column in columns]
        return None if len(known) < samples * len(columns) else np.sum(known, axis=0)


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
