"""The policy that a router replica serves: policy, encoder, and the embeddings of recent queries.

Loads, encodes and decides on the thread that calls it; imports no Ray. A new configuration makes a new
`ServedPolicy`: a batch is decided by one of them as a whole.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deployments.config import RouterArgs, RouterConfig
from deployments.contracts.messages import PolicyView, ServedPlan
from deployments.last_good import SavedConfig
from deployments.observability import metrics
from deployments.routing.embedding_cache import EmbeddingCache
from deployments.routing.in_transit import InTransit
from deployments.settings import resolve
from router.core import Decision, Exploration, FloatArray, QueryBatch, RouteRequest
from router.encoders import Encoder, EncoderSpec, load_encoder
from router.errors import PoolError
from router.learning.exploration import explored
from router.policy import Policy

ENCODE_SECONDS, SCORE_SECONDS = (metrics.router_seconds.labels(stage) for stage in ("encode", "score"))


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """One policy in service; replaced as a whole by a swap."""

    policy: Policy
    encoder: Encoder
    folder: str
    embeddings: EmbeddingCache = field(default_factory=EmbeddingCache)
    """Of recent queries, by this encoder; one batch at a time uses it."""
    in_transit: InTransit = field(default_factory=lambda: InTransit(time.monotonic))
    exploration: Exploration = field(default_factory=lambda: Exploration(0.0))

    @property
    def is_light(self) -> bool:
        """Whether a decision takes a fraction of a millisecond, all of it in the thread that calls."""
        return self.encoder.spec.kind == "static"

    def decide(self, requests: Sequence[RouteRequest]) -> list[Decision]:
        """Encode, score and decide a batch; one decision per request, in their order."""
        texts = tuple([request.query for request in requests])
        with ENCODE_SECONDS.time():
            batch = QueryBatch(texts, self._encode(texts))
        with SCORE_SECONDS.time():
            loaded = any(request.load for request in requests)
            ahead = self.in_transit.counts() if loaded else None
            decisions = [
                explored(self.exploration, request.unit, decision)
                if request.explore and request.unit is not None
                else decision
                for request, decision in zip(
                    requests, self.policy.decide(batch, requests, ahead=ahead), strict=True
                )
            ]
            if loaded:
                self.in_transit.add(decisions)
        metrics.router_unfamiliar.inc(sum(decision.unfamiliar for decision in decisions if decision.ranking))
        return decisions

    def view(self) -> PolicyView:
        """Return what the ingress knows of the policy."""
        policy = self.policy
        windows = {expert.name: expert.context_window for expert in policy.pool}
        return PolicyView(
            policy_id=policy.policy_id,
            experts=policy.pool.names,
            static_ranking=policy.static_ranking,
            context_windows={name: window for name, window in windows.items() if window is not None},
            prices={expert.name: expert.price for expert in policy.pool if expert.price is not None},
            folder=self.folder,
            best_single=policy.training.get("best_single"),
            preferences=policy.preferences,
            plans={}
            if policy.plans is None
            else {
                plan.name: ServedPlan(plan, model)
                for plan, model in zip(policy.plans.plans, policy.plans.models, strict=True)
            },
            is_prior=bool(policy.training.get("prior")) and not policy.training.get("n_queries"),
        )

    def _encode(self, texts: tuple[str, ...]) -> FloatArray:
        """Return the embeddings of `texts`; a transformer encodes each distinct and unknown one once."""
        if self.is_light:  # as fast as a look-up
            return self.encoder.encode(texts)
        rows: dict[str, FloatArray] = {}
        for text in dict.fromkeys(texts):
            row = self.embeddings.get(text)
            if row is not None:
                rows[text] = row
        metrics.router_cached.inc(sum(text in rows for text in texts))
        missing = list(dict.fromkeys(text for text in texts if text not in rows))
        if missing:
            for text, row in zip(missing, self.encoder.encode(missing), strict=True):
                rows[text] = row
                self.embeddings.put(text, row)
        return np.stack([rows[text] for text in texts])


def load(config: RouterConfig, args: RouterArgs, current: ServedPolicy | None) -> ServedPolicy:
    """Load the policy that a configuration names.

    Args:
        config: the configuration.
        args: shape of the router deployment.
        current: the policy in service, whose encoder and embeddings are kept where they fit.

    Raises:
        PoolError: the policy does not cover the configured experts, or needs another encoder.
        RouterError: the folder holds no valid policy.
        OSError: the folder cannot be read.
    """
    if config.policy is None:
        raise PoolError("no policy is configured")
    policy = Policy.load(resolve(config.policy))
    if missing := sorted(set(config.experts or ()) - set(policy.pool.names)):
        raise PoolError(
            f"policy {policy.policy_id} does not cover the experts {', '.join(missing)}; "
            f"it covers {', '.join(policy.pool.names)}"
        )
    policy = policy.with_overrides(
        prices={name: price.as_price() for name, price in config.prices.items()},
        preferences=None if config.preferences is None else config.preferences.as_preferences(),
    )
    encoder = _encoder(policy, args, current)
    encoder.encode(["warm up"])
    exploration = config.explore.as_exploration()
    if current is not None and current.encoder is encoder:
        return ServedPolicy(policy, encoder, config.policy, current.embeddings, exploration=exploration)
    return ServedPolicy(policy, encoder, config.policy, exploration=exploration)


def load_saved(saved: SavedConfig, copy: Path | None, args: RouterArgs) -> ServedPolicy:
    """Load the policy that was served with a saved configuration.

    Args:
        saved: the configuration.
        copy: the folder of the copy of its policy; the policy's own folder may hold another one by now.
        args: shape of the router deployment.

    Raises:
        ValidationError: this version rejects the configuration.
        PoolError: the policy does not cover the configured experts, or needs another encoder.
        RouterError: neither folder holds the policy.
        OSError: the folder cannot be read.
    """
    config = RouterConfig.model_validate(saved.user_config)
    if copy is not None:
        return load(config.model_copy(update={"policy": str(copy)}), args, None)
    served = load(config, args, None)
    if served.policy.policy_id != saved.policy_id:
        raise PoolError(f"{config.policy} no longer holds policy {saved.policy_id}")
    return served


def _encoder(policy: Policy, args: RouterArgs, current: ServedPolicy | None) -> Encoder:
    if current is not None and current.encoder.spec.sha256 == policy.encoder.sha256:
        return current.encoder
    name = policy.encoder if args.encoder == "default" else args.encoder
    encoder = load_encoder(_absolute(name), device=args.device, threads=args.threads)
    if encoder.spec.sha256 != policy.encoder.sha256:
        raise PoolError(
            f"the policy was trained with encoder {policy.encoder.id} "
            f"({policy.encoder.sha256[:12]}), args.router.encoder is {encoder.spec.id} "
            f"({encoder.spec.sha256[:12]}): name the policy's encoder"
        )
    return encoder


def _absolute(encoder: str | EncoderSpec) -> str | EncoderSpec:
    """An encoder's folder made absolute; the id of a package or of the hub as it is."""
    folder = resolve(encoder if isinstance(encoder, str) else encoder.id)
    if not folder.is_dir():
        return encoder
    return str(folder) if isinstance(encoder, str) else replace(encoder, id=str(folder))
