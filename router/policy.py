"""A policy: encoder + method + pool + cost model + guard, saved and served as one.

The one way from queries to decisions; serving, evaluation and the command line all take it.
Does not encode: callers bring embeddings made with the encoder that the policy names.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from router import artifact
from router.assignment import Predicted, Queue, times
from router.calibration import Calibration
from router.core import BoolArray, Decision, FloatArray, Preferences, QueryBatch, RouteRequest
from router.costs import CostModel, Regression
from router.decide import as_decisions, decide, exclusions
from router.encoders import EncoderSpec
from router.errors import ManifestError, PlanError, PoolError, WeightsError
from router.experts import CandidatePool, Price
from router.guard import NoveltyGuard
from router.manifest import (
    TRAINING_FACTS,
    Manifest,
    facts_of_plans,
    read_manifest,
    stored_preferences,
)
from router.methods.contract import RoutingMethod
from router.methods.registry import restored
from router.plans.plan_set import PlanSet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scores:
    """Predicted quality of a batch."""

    quality: FloatArray  # [n, candidates] in [0, 1]
    unfamiliar: BoolArray  # [n] far from all training data: the row holds the pool's means
    p_accept: FloatArray | None = None  # [n, plans]; `None` without plans


@dataclass(frozen=True)
class Policy:
    """What `to-router train` makes and the router deployment serves."""

    pool: CandidatePool
    encoder: EncoderSpec
    method: RoutingMethod
    costs: CostModel
    guard: NoveltyGuard
    static_ranking: tuple[str, ...]
    """Experts, best first, for when no decision can be had."""
    preferences: Preferences = Preferences()
    calibration: Calibration | None = None
    waits: Regression | None = None
    """Time to the first token in milliseconds, as it was when outcomes were collected."""
    latencies: Regression | None = None
    """Time to the end of the answer in milliseconds, likewise; for plans, which hold answers back."""
    plans: PlanSet | None = None
    """Candidates made of experts of the pool; `method`, calibration and guard have columns for them too."""
    preferences_without_plans: Preferences | None = None
    """The default preference of requests that allow no plan; `None` without plans."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Provenance: data hash, seed, best single expert, metrics. Never read for decisions."""
    card: str = ""
    policy_id: str = "unsaved"

    @property
    def candidates(self) -> tuple[str, ...]:
        """The order of the columns of scores: the pool's experts, then the plans."""
        return self.pool.names + (() if self.plans is None else self.plans.names)

    @property
    def means(self) -> FloatArray:
        """Every candidate's mean quality, in the order of `candidates`."""
        columns = slice(None) if self.plans is None else self.plans.columns(len(self.guard.means))
        return self.guard.means[columns]

    def score(self, queries: QueryBatch) -> Scores:
        """Predicted quality of every candidate, calibrated, with the guard applied."""
        raw = self.method.score(queries)
        quality = raw if self.calibration is None else self.calibration.apply(raw)
        unfamiliar = self.guard.unfamiliar(queries.embeddings)
        guarded = np.where(unfamiliar[:, None], self.guard.means, quality) if unfamiliar.any() else quality
        if self.plans is None:
            return Scores(guarded, unfamiliar)
        ordered = guarded[:, self.plans.columns(guarded.shape[1])]
        return Scores(ordered, unfamiliar, self.plans.p_accept(queries, unfamiliar))

    def expected_tokens(
        self, queries: QueryBatch, requests: Sequence[RouteRequest]
    ) -> tuple[FloatArray, FloatArray]:
        """Expected tokens of prompts and answers, each [n, experts]."""
        prompts = self.costs.prompt_tokens(queries.texts, [request.prompt_tokens for request in requests])
        bounds = [request.max_tokens for request in requests]
        return prompts, self.costs.completion_tokens(queries.embeddings, bounds)

    def expected_costs(
        self,
        queries: QueryBatch,
        requests: Sequence[RouteRequest],
        tokens: tuple[FloatArray, FloatArray] | None = None,
    ) -> FloatArray | None:
        """Expected US$ of every expert, [n, experts]; `None` when nothing about cost is known."""
        return self.costs.predict(
            queries.embeddings,
            queries.texts,
            prompt_tokens=[request.prompt_tokens for request in requests],
            max_tokens=[request.max_tokens for request in requests],
            tokens=tokens,
        )

    def expected_waits(self, queries: QueryBatch, requests: Sequence[RouteRequest]) -> FloatArray:
        """Expected milliseconds to the first token, [n, experts]; NaN where unknown.

        The caller's current values override the learnt ones.
        """
        return self._times(self.waits, queries, [request.ttft_ms for request in requests])

    def expected_latencies(self, queries: QueryBatch, requests: Sequence[RouteRequest]) -> FloatArray:
        """Expected milliseconds to the end of the answer, likewise."""
        return self._times(self.latencies, queries, [request.latency_ms for request in requests])

    def _times(
        self, model: Regression | None, queries: QueryBatch, current: Sequence[Mapping[str, float]]
    ) -> FloatArray:
        names, unknown = self.pool.names, float("nan")
        times: FloatArray
        if any(current):
            times = np.array([[known.get(name, unknown) for name in names] for known in current], dtype=float)
        else:
            times = np.full((len(current), len(names)), unknown)
        if model is None:
            return times
        return np.where(np.isnan(times), model.predict(queries.embeddings), times)

    def decide(
        self,
        queries: QueryBatch,
        requests: Sequence[RouteRequest],
        *,
        ahead: Mapping[str, float] | None = None,
        independent: bool = False,
    ) -> list[Decision]:
        """A decision for each request, its ranking empty where no expert is eligible.

        One request without an eligible expert thus cannot fail a batch. Where requests carry the experts'
        load they are assigned one after the other, and each sees the load of those before it.

        Args:
            queries: of the requests.
            requests: in the order of their assignment.
            ahead: expert → requests that were assigned to it before, and that no load contains yet.
            independent: the requests do not come together, as those of a log do not: none is load for others.
        """
        scores = self.score(queries)
        wanted = [request.preferences.over(self._default(request)) for request in requests]
        loaded = any(request.load for request in requests)
        tokens = self.expected_tokens(queries, requests) if loaded else None
        timed = scores.p_accept is not None or any(said.reads_times for said in wanted)
        predicted = Predicted(
            scores.quality,
            scores.unfamiliar,
            scores.p_accept,
            self.expected_costs(queries, requests, tokens),
            self.expected_waits(queries, requests),
            self.expected_latencies(queries, requests) if timed else None,
        )
        if tokens is None:
            return self._ranked(predicted, requests, wanted)
        prompts, completions = tokens
        queue, decisions = Queue(self.pool.names, ahead or {}), []
        for row, request in enumerate(requests):
            expected = times(request.load, prompts[row], completions[row], queue, self.pool.names)
            one = predicted.row(row).with_times(expected)
            (decision,) = self._ranked(one, [request], [wanted[row]])
            if not independent:
                queue.add(decision)
            decisions.append(decision)
        return decisions

    def _ranked(
        self, predicted: Predicted, requests: Sequence[RouteRequest], wanted: Sequence[Preferences]
    ) -> list[Decision]:
        """Compose the plans, exclude, rank."""
        composed = None if self.plans is None else predicted.composed(self.plans, self.pool.names)
        predicted = predicted if composed is None else predicted.beside(composed)
        costs, waits, latencies = predicted.costs, predicted.waits, predicted.latencies
        reasons = []
        for row, (request, said) in enumerate(zip(requests, wanted, strict=True)):
            excluded = {name: why for name, why in request.excluded.items() if name in self.pool}
            limited = [None if values is None else values[row] for values in (costs, waits, latencies)]
            reasons.append(exclusions(excluded, said, self.candidates, limited))
        if composed is not None:
            for why, request, holds in zip(reasons, requests, composed.holds, strict=True):
                composed.plans.exclude(why, request, holds)
        names = self.candidates
        eligible = None
        if any(reasons):
            eligible = np.array([[name not in why for name in names] for why in reasons], dtype=bool)
        rankings = decide(
            predicted.quality,
            costs,
            preferences=wanted,
            eligible=eligible,
            experts=len(self.pool),
            seconds=predicted.priced_s,
        )
        return as_decisions(
            rankings,
            predicted.quality,
            costs,
            waits,
            names=names,
            exclusions=reasons,
            preferences=wanted,
            policy_id=self.policy_id,
            unfamiliar=predicted.unfamiliar,
            plans=None if composed is None else composed.view,
            experts=len(self.pool),
            latencies=latencies,
            queues=predicted.queues,
        )

    def _default(self, request: RouteRequest) -> Preferences:
        """The default preference: one that plans make safe may cost quality where none may be chosen."""
        plain = self.preferences_without_plans
        return self.preferences if request.plans or plain is None else plain

    def with_overrides(
        self, *, prices: Mapping[str, Price] | None = None, preferences: Preferences | None = None
    ) -> Self:
        """The same policy under other prices and another default preference; its id stays.

        Prices that cannot change the policy's expected costs are logged as a warning; the ingress still
        accounts with them.

        Raises:
            PoolError: a price is set for an expert that the policy does not score.
        """
        prices = prices or {}
        if unknown := sorted(set(prices) - set(self.pool.names)):
            raise PoolError(
                f"a price is set for {', '.join(unknown)}, which policy {self.policy_id} does not score; "
                f"it scores {', '.join(self.pool.names)}"
            )
        if prices and not self.costs.priced:
            logger.warning(
                "prices of %s do not change the decisions of policy %s, because it learnt costs from "
                "cost_usd without completion_tokens: train it on outcomes that hold those too",
                ", ".join(sorted(prices)),
                self.policy_id,
            )
        pool = CandidatePool(
            [replace(expert, price=prices.get(expert.name, expert.price)) for expert in self.pool]
        )
        return replace(
            self,
            pool=pool,
            costs=self.costs.with_prices(pool, prices),
            preferences=self.preferences if preferences is None else preferences.over(self.preferences),
            preferences_without_plans=self.preferences_without_plans
            if preferences is None or self.preferences_without_plans is None
            else preferences.over(self.preferences_without_plans),
        )

    def save(self, folder: Path, card: str) -> Self:
        """Write the policy folder; returns the policy with its id.

        Args:
            folder: a new folder.
            card: the text of its CARD.md; `router.training.card` writes one.

        Raises:
            FileExistsError: something exists at `folder`.
            WeightsError: an array is not finite.
            ManifestError: a fact is not JSON.
        """
        facts_of_training = dict(self.training)
        facts = {
            "router": {"name": self.method.name, "params": self.method.params},
            "encoder": asdict(self.encoder),
            "pool": [expert.to_json() for expert in self.pool],
            "cost_model": self.costs.facts().model_dump(mode="json"),
            "calibration": None if self.calibration is None else self.calibration.to_json(),
            "wait_model": None if self.waits is None else {"kind": "log_ridge", "unit": "ms"},
            **facts_of_plans(self.plans, self.preferences_without_plans, timed=self.latencies is not None),
            "static_ranking": list(self.static_ranking),
            "preferences": stored_preferences(self.preferences),
            **{name: facts_of_training.pop(name, None) for name in TRAINING_FACTS},
            "training": facts_of_training,
        }
        parts = {"method": self.method.arrays(), "cost": self.costs.arrays(), "guard": self.guard.arrays()}
        for name, part in self._optional().items():
            if part is not None:
                parts[name] = part.arrays()
        arrays = {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}
        version = artifact.SCHEMA_VERSION if self.plans is not None else artifact.WITHOUT_PLANS
        policy_id = artifact.save(folder, artifact.Artifact(facts, arrays, card, version))
        return replace(self, card=card, policy_id=policy_id)

    def _optional(self) -> dict[str, Calibration | Regression | PlanSet | None]:
        """Parts that not every policy has, by the prefix of their arrays."""
        return {
            "calibration": self.calibration,
            "wait": self.waits,
            "latency": self.latencies if self.plans is not None else None,
            "plans": self.plans,
        }

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read and verify a policy folder.

        Raises:
            ArtifactError: it cannot be trusted or read.
            MethodError: its method is not installed here.
        """
        stored, policy_id = artifact.load(folder)
        try:
            policy = cls._restored(read_manifest(stored.facts), stored, policy_id)
        except (PoolError, PlanError) as error:
            raise ManifestError(f"{folder}: {error}") from error
        except (ManifestError, WeightsError) as error:
            raise type(error)(f"{folder}: {error}") from error
        policy._check(folder)
        return policy

    @classmethod
    def _restored(cls, facts: Manifest, stored: artifact.Artifact, policy_id: str) -> Self:
        arrays = stored.arrays
        calibrated, waits = facts.calibration is not None, facts.wait_model is not None
        planned, latencies = bool(facts.plans), facts.latency_model is not None
        present = {"calibration": calibrated, "wait": waits, "latency": latencies, "plans": planned}
        known = ["method", "cost", "guard", *(name for name, there in present.items() if there)]
        if unknown := sorted(name for name in arrays if name.split("/")[0] not in known):
            raise WeightsError(f"a stored array {unknown[0]!r} belongs to no part of the policy")
        return cls(
            pool=CandidatePool(facts.pool),
            encoder=facts.encoder,
            method=restored(facts.router.name, facts.router.params, artifact.part(arrays, "method")),
            costs=CostModel.restore(facts.cost_model, artifact.part(arrays, "cost")),
            guard=NoveltyGuard.restore(artifact.part(arrays, "guard")),
            static_ranking=tuple(facts.static_ranking),
            preferences=Preferences(**facts.preferences),
            calibration=Calibration.restore(artifact.part(arrays, "calibration")) if calibrated else None,
            waits=Regression.restore(artifact.part(arrays, "wait")) if waits else None,
            latencies=Regression.restore(artifact.part(arrays, "latency")) if latencies else None,
            plans=PlanSet.restore(
                facts.plans, artifact.part(arrays, "plans"), [expert.name for expert in facts.pool]
            )
            if facts.plans
            else None,
            preferences_without_plans=None
            if facts.preferences_without_plans is None
            else Preferences(**facts.preferences_without_plans),
            training={**facts.training, **{name: getattr(facts, name) for name in TRAINING_FACTS}},
            card=stored.card,
            policy_id=policy_id,
        )

    def _check(self, folder: Path) -> None:
        """Check that the shapes fit each other, before the first query."""
        rows = np.eye(
            2, self.encoder.dimension, dtype=np.float32
        )  # one far from all training queries, one maybe near
        blank, width, experts = QueryBatch(("", "a"), rows), len(self.candidates), len(self.pool)
        try:
            quality = self.method.score(blank)
            quality = quality if self.calibration is None else self.calibration.apply(quality)
            self.score(blank)
            self.decide(blank, [RouteRequest("", plans=True)] * 2)
            costs = self.expected_costs(blank, [RouteRequest("")] * 2)
            waits = self.expected_waits(blank, [RouteRequest("")] * 2)
        except (ValueError, IndexError, TypeError) as error:
            raise WeightsError(
                f"{folder}: stored arrays do not fit each other or the encoder: {error}"
            ) from error
        if quality.shape != (2, width) or not np.isfinite(quality).all():
            raise WeightsError(
                f"{folder}: scores have shape {list(quality.shape)}, the pool {width} candidates"
            )
        if self.guard.means.shape != (width,) or len(self.costs.prices) != experts:
            raise WeightsError(
                f"{folder}: guard and cost model must hold one value for each of {width} candidates"
            )
        if waits.shape != (2, experts) or (costs is not None and costs.shape != (2, experts)):
            raise WeightsError(f"{folder}: costs and waits must hold one value for each of {experts} experts")
