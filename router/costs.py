"""Expected cost of a query on each expert, over the answers that it may give.

Completion tokens are predicted per (query, expert) by ridge regression on the embedding in log
space, with Duan's smearing factor to bring the mean back (Duan 1983, J. Am. Stat. Assoc. 78).
Prompt tokens follow the query's length, by a factor for each expert's tokenizer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel

from router.core import BoolArray, FloatArray
from router.errors import WeightsError
from router.experts import CandidatePool, Price
from router.validation import AmountUSD

BYTES_PER_TOKEN = 4
TOKENS_AROUND = 4
"""Tokens of a chat template around one message."""
ASSUMED_COMPLETION_TOKENS = 256.0
"""Length of an answer where no outcome holds one: prices can then still be compared."""
PARTS: tuple[Literal["tokens", "prompt_factor", "usd"], ...] = ("tokens", "prompt_factor", "usd")
"""Parts of a cost model that are stored as arrays, where it has them."""
RIDGE = 30.0
"""Penalty of the regression; chosen once on recorded outcomes, see docs/research-log.md."""


def estimated_prompt_tokens(text: str) -> int:
    """Tokens of a prompt before any tokenizer has seen it; `CostModel` learns each expert's factor to it."""
    return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN) + TOKENS_AROUND


class CostFacts(BaseModel):
    """What a manifest holds of a cost model; the rest is arrays."""

    prices_per_mtok: list[tuple[AmountUSD | None, AmountUSD | None]]
    """(input, output) of each expert, US$; `None` where unknown."""
    parts: list[Literal["tokens", "prompt_factor", "usd"]]
    """The parts that are stored."""


@dataclass(frozen=True)
class CostModel:
    """Expected cost of every expert of the pool.

    Where outcomes carry tokens and the pool prices, cost is priced tokens; where they carry only a
    cost, the cost itself is regressed; where there is a price alone, an answer of assumed length is
    priced; where nothing is known, there is no cost.
    """

    prices: FloatArray  # [experts, 2] US$ per million tokens in, out; NaN where unknown
    tokens: "Regression | None" = None
    """Completion tokens."""
    prompt_factor: FloatArray | None = None  # [experts]
    usd: "Regression | None" = None
    """Cost in micro-US$, where tokens or prices are not known."""

    @classmethod
    def fit(
        cls,
        pool: CandidatePool,
        texts: Sequence[str],
        embeddings: FloatArray,
        *,
        prompt_tokens: FloatArray | None,
        completion_tokens: FloatArray | None,
        costs_usd: FloatArray | None,
    ) -> Self:
        """Learn from outcomes: arrays [n, experts] with NaN where not measured, `None` where absent."""
        prices = np.array(
            [[np.nan, np.nan] if e.price is None else [e.price.input, e.price.output] for e in pool]
        )
        tokens = None if completion_tokens is None else Regression.fit(embeddings, completion_tokens)
        factor = None
        if prompt_tokens is not None:
            estimate = np.array([estimated_prompt_tokens(text) for text in texts], dtype=float)[:, None]
            seen = np.isfinite(prompt_tokens)
            total = np.where(seen, estimate, 0).sum(axis=0)
            factor = np.where(total > 0, np.nansum(prompt_tokens, axis=0) / np.maximum(total, 1), 1.0)
        usd = None
        if costs_usd is not None and (tokens is None or not np.isfinite(prices).all()):
            usd = Regression.fit(embeddings, costs_usd * 1e6)
        return cls(prices, tokens, factor, usd)

    @property
    def priced(self) -> bool:
        """Whether prices have an effect: not where cost itself was learnt, without tokens to price."""
        return self.tokens is not None or self.usd is None

    def with_prices(self, pool: CandidatePool, prices: Mapping[str, Price]) -> Self:
        """The same model under other prices, for those experts that are named."""
        changed = self.prices.copy()
        for name, price in prices.items():
            changed[pool.column(name)] = (price.input, price.output)
        return replace(self, prices=changed)

    def with_expert(
        self,
        price: Price | None,
        texts: Sequence[str],
        embeddings: FloatArray,
        *,
        prompt_tokens: FloatArray | None,
        completion_tokens: FloatArray | None,
        cost_usd: FloatArray | None,
    ) -> Self:
        """The same model with one more expert, from a few outcomes, [n] each, NaN where not measured."""
        row = [np.nan, np.nan] if price is None else [price.input, price.output]
        factor = self.prompt_factor
        if factor is not None:
            seen = np.zeros(0, bool) if prompt_tokens is None else np.isfinite(prompt_tokens)
            estimate = sum(estimated_prompt_tokens(text) for text, s in zip(texts, seen, strict=False) if s)
            counted = float(prompt_tokens[seen].sum()) if prompt_tokens is not None else 0.0
            factor = np.append(factor, counted / estimate if estimate and counted else factor.mean())
        return replace(
            self,
            prices=np.vstack([self.prices, row]),
            prompt_factor=factor,
            tokens=None if self.tokens is None else self.tokens.with_column(embeddings, completion_tokens),
            usd=None
            if self.usd is None
            else self.usd.with_column(embeddings, None if cost_usd is None else cost_usd * 1e6),
        )

    def predict(
        self,
        embeddings: FloatArray,
        texts: Sequence[str],
        *,
        prompt_tokens: Sequence[int] | None = None,
        max_tokens: Sequence[int | None] | None = None,
        tokens: tuple[FloatArray, FloatArray] | None = None,
    ) -> FloatArray | None:
        """Expected US$, [n, experts], NaN where unknown; `None` when nothing about cost is known.

        Args:
            embeddings: [n, dimension] of the queries.
            texts: the queries; their length is used where a prompt's length is not known.
            prompt_tokens: the caller's own estimate of each whole prompt; 0 where unknown.
            max_tokens: the caller's bound on each answer; `None` for none.
            tokens: those of prompts and answers, where they are known from before.
        """
        priced = None
        if self._prices_known:
            prompt, completion = tokens or (
                self.prompt_tokens(texts, prompt_tokens),
                self.completion_tokens(embeddings, max_tokens),
            )
            priced = (prompt * self.prices[:, 0] + completion * self.prices[:, 1]) / 1e6
        if self.usd is None:
            return priced
        direct = self.usd.predict(embeddings) / 1e6
        return direct if priced is None else np.where(np.isfinite(priced), priced, direct)

    @cached_property
    def _prices_known(self) -> bool:
        """Whether there is any price that has an effect."""
        return self.priced and bool(np.isfinite(self.prices).all(axis=1).any())

    def completion_tokens(
        self, embeddings: FloatArray, max_tokens: Sequence[int | None] | None = None
    ) -> FloatArray:
        """Expected tokens of the answers, [n, experts]; the others' mean where none was measured.

        Args:
            embeddings: [n, dimension] of the queries.
            max_tokens: the caller's bound on each answer; `None` for none.
        """
        expected = self._unbounded(embeddings)
        if max_tokens is None:
            return expected
        bound = [np.inf if limit is None else max(limit, 0) for limit in max_tokens]
        bounded: FloatArray = np.minimum(expected, np.array(bound)[:, None])
        return bounded

    def _unbounded(self, embeddings: FloatArray) -> FloatArray:
        n, width = len(embeddings), len(self.prices)
        if self.tokens is None:
            return np.full((n, width), ASSUMED_COMPLETION_TOKENS)
        expected = self.tokens.predict(embeddings)
        measured = np.isfinite(expected)
        if measured.all():
            return expected
        mean = np.where(measured, expected, 0.0).sum(axis=1) / np.maximum(measured.sum(axis=1), 1)
        mean = np.where(measured.any(axis=1), mean, ASSUMED_COMPLETION_TOKENS)
        return np.where(measured, expected, mean[:, None])

    def prompt_tokens(self, texts: Sequence[str], estimates: Sequence[int] | None) -> FloatArray:
        """Tokens of the prompts as each expert's tokenizer counts them, [n, experts]."""
        known = (0,) * len(texts) if estimates is None else estimates
        counts = [
            count if count > 0 else estimated_prompt_tokens(text)
            for count, text in zip(known, texts, strict=True)
        ]
        factor = np.ones(len(self.prices)) if self.prompt_factor is None else self.prompt_factor
        tokens: FloatArray = np.array(counts, dtype=float)[:, None] * factor
        return tokens

    def facts(self) -> CostFacts:
        """What a manifest holds of it."""
        return CostFacts.model_validate(
            {
                "prices_per_mtok": [[_number(value) for value in row] for row in self.prices],
                "parts": [part for part in PARTS if getattr(self, part) is not None],
            }
        )

    def arrays(self) -> dict[str, FloatArray]:
        """The stored parts, as named arrays for safetensors."""
        arrays: dict[str, FloatArray] = {}
        for name in ("tokens", "usd"):
            part = getattr(self, name)
            if part is not None:
                arrays |= {f"{name}.{key}": value for key, value in part.arrays().items()}
        if self.prompt_factor is not None:
            arrays["prompt_factor"] = self.prompt_factor
        return arrays

    @classmethod
    def restore(cls, facts: CostFacts, arrays: Mapping[str, FloatArray]) -> Self:
        """The model again, from its facts and arrays.

        Raises:
            WeightsError: an array of a named part is missing.
        """
        parts = {
            name: Regression.restore(
                {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
            )
            for name in ("tokens", "usd")
            if name in facts.parts
        }
        prices = np.array([[np.nan if v is None else v for v in row] for row in facts.prices_per_mtok])
        if "prompt_factor" in facts.parts and "prompt_factor" not in arrays:
            raise WeightsError("the cost model lacks the array prompt_factor")
        factor = arrays["prompt_factor"] if "prompt_factor" in facts.parts else None
        return cls(prices, parts.get("tokens"), factor, parts.get("usd"))


@dataclass(frozen=True)
class Regression:
    """Ridge regression of a positive amount's logarithm, for each expert, clipped to the observed range."""

    weights: FloatArray  # [dimension, experts]
    intercept: FloatArray  # [experts]
    smearing: FloatArray  # [experts]
    limits: FloatArray  # [2, experts] lowest and highest amount that is predicted

    @classmethod
    def fit(cls, embeddings: FloatArray, amounts: FloatArray) -> Self:
        """Learn from embeddings [n, dimension] and amounts [n, experts], NaN where not measured."""
        width = amounts.shape[1]
        x = embeddings.astype(np.float64)
        weights = np.zeros((x.shape[1], width))
        intercept, smearing = np.zeros(width), np.ones(width)
        limits = np.zeros((2, width))
        for column in range(width):
            seen = np.isfinite(amounts[:, column])
            if not seen.any():
                limits[:, column] = (0.0, -1.0)  # never measured; arrays on disk must be finite
                continue
            y = np.log1p(np.maximum(amounts[seen, column], 0))
            centre, mean = x[seen].mean(axis=0), y.mean()
            centred = x[seen] - centre
            gram = centred.T @ centred + RIDGE * np.eye(x.shape[1])
            weights[:, column] = np.linalg.solve(gram, centred.T @ (y - mean))
            intercept[column] = mean - centre @ weights[:, column]
            fitted = np.expm1(x[seen] @ weights[:, column] + intercept[column])
            smearing[column] = amounts[seen, column].mean() / max(fitted.mean(), 1e-9)
            limits[:, column] = np.quantile(amounts[seen, column], [0.005, 0.995])
        return cls(weights.astype(np.float32), intercept, smearing, limits)

    def with_column(self, embeddings: FloatArray, amounts: FloatArray | None) -> Self:
        """The same with one more expert, whose amounts vary with the query as the others' do."""
        measured = self.limits[1] >= self.limits[0]
        seen = np.zeros(len(embeddings), bool) if amounts is None else np.isfinite(amounts)
        weights = self.weights[:, measured].mean(axis=1) if measured.any() else 0 * self.weights[:, 0]
        intercept, smearing, limits = 0.0, 1.0, (0.0, -1.0)
        if amounts is not None and seen.any():
            known, x = np.maximum(amounts[seen], 0), embeddings[seen]
            intercept = float((np.log1p(known) - x @ weights).mean())
            fitted = np.expm1(x @ weights + intercept)
            smearing = float(known.mean() / max(fitted.mean(), 1e-9))
            limits = (float(known.min()), float(known.max()))
        return type(self)(
            np.hstack([self.weights, weights[:, None]]).astype(np.float32),
            np.append(self.intercept, intercept),
            np.append(self.smearing, smearing),
            np.hstack([self.limits, np.array(limits)[:, None]]),
        )

    def predict(self, embeddings: FloatArray) -> FloatArray:
        """Expected amounts, [n, experts]; NaN for an expert that was never measured."""
        raw: FloatArray = embeddings @ self.weights + self.intercept
        np.expm1(raw, out=raw)
        raw *= self.smearing
        low, high, never_measured = self._bounds
        np.minimum(np.maximum(raw, low, out=raw), high, out=raw)
        if never_measured is not None:
            raw[:, never_measured] = np.nan
        return raw

    @cached_property
    def _bounds(self) -> tuple[FloatArray, FloatArray, BoolArray | None]:
        """(lowest and highest amount, experts that were never measured, if any)."""
        low, high = self.limits
        never = high < low
        return low, np.maximum(low, high), never if never.any() else None

    def arrays(self) -> dict[str, FloatArray]:
        return {
            "weights": self.weights,
            "intercept": self.intercept,
            "smearing": self.smearing,
            "limits": self.limits,
        }

    @classmethod
    def restore(cls, arrays: Mapping[str, FloatArray]) -> Self:
        missing = {"weights", "intercept", "smearing", "limits"} - arrays.keys()
        if missing:
            raise WeightsError(f"a regression of the cost model lacks {', '.join(sorted(missing))}")
        return cls(arrays["weights"], arrays["intercept"], arrays["smearing"], arrays["limits"])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
