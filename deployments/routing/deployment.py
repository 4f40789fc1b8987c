"""The router deployment: a batch of queries in, a decision for each out.

A thin shell around `router.policy`: it loads, batches and delegates. Stateless but for the policy
in force and a bounded cache of embeddings, so any replica can answer any query.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from deployments.config import RouterArgs, RouterConfig
from deployments.contracts.messages import NO_TRACE, PolicyView, RouterResponse, RouterState, TraceContext
from deployments.observability import metrics, tracing
from deployments.replica import replica_name
from deployments.routing.batching import Batcher
from deployments.settings import explain, resolve
from router.core import FloatArray, QueryBatch, RouteRequest
from router.encoders import Encoder, EncoderSpec, load_encoder
from router.errors import PoolError, RouterError
from router.policy import Policy

logger = logging.getLogger("ray.serve")

CACHED_EMBEDDINGS = 8192
"""About 12 MiB at 384 dimensions."""


@dataclass(frozen=True, slots=True)
class Served:
    """What one batch is answered with; replaced as a whole by a swap."""

    policy: Policy
    encoder: Encoder
    folder: str
    embeddings: OrderedDict[str, FloatArray] = field(default_factory=OrderedDict)
    """Of queries seen lately, by this encoder; kept by the thread that answers batches."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question in the queue."""

    request: RouteRequest
    at: float
    """When it came, by the monotonic clock."""


class Router:
    """Scores and decides with the policy that `user_config` names."""

    def __init__(self, args: RouterArgs) -> None:
        self._args = args
        self._served: Served | None = None
        self._error: str | None = "no policy is configured: user_config of Router names none"
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router")
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy-loader")
        self._tracer = tracing.tracer("to-router-router")
        self._batches = Batcher(
            self._answer_batch, most=args.max_batch_size, wait_s=args.batch_wait_ms / 1000
        )

    async def reconfigure(self, user_config: Any) -> None:
        """Take over a new `user_config`, or keep the last good one and say why.

        Never raises: Serve would stop this replica, which still answers well, and start one that
        cannot.
        """
        loop = asyncio.get_running_loop()
        try:
            config = RouterConfig.model_validate(user_config or {})
            self._served = await loop.run_in_executor(self._loader, self._load, config)
        except ValidationError as error:
            self._refuse(explain(error, "user_config"))
        except (RouterError, OSError) as error:
            self._refuse(f"{type(error).__name__}: {error}")
        except Exception as error:
            logger.exception("policy refused for an unforeseen reason")
            self._refuse(f"unforeseen {type(error).__name__}: {error}")
        else:
            self._error = None
            metrics.config_refused.labels("Router").set(0)
            metrics.policy_swaps.labels("accepted").inc()
            logger.info("policy %s loaded from %s", self._served.policy.policy_id, self._served.folder)

    async def decide(self, request: RouteRequest, trace: TraceContext = NO_TRACE) -> RouterResponse:
        """A decision; why there is none is a value too, never an exception.

        An exception inside a batch would fail every request of that batch.
        """
        span = self._tracer.begin("router decide", trace)
        try:
            response: RouterResponse = await self._batches.ask(_Asked(request, time.monotonic()))
        finally:
            span.end()
        return response

    async def exposition(self) -> tuple[str, bytes]:
        """This replica's name and metrics."""
        metrics.tasks.set(len(asyncio.all_tasks()))
        return replica_name(), metrics.exposition()

    def describe(self) -> RouterState:
        """What this replica serves, and what it last refused."""
        served = self._served
        return RouterState(policy=None if served is None else _view(served), error=self._error)

    async def _answer_batch(self, asked: list[_Asked]) -> list[RouterResponse]:
        served, now = self._served, time.monotonic()
        for one in asked:
            metrics.router_seconds.labels("queue").observe(now - one.at)
        requests = [one.request for one in asked]
        if served is None:
            return [RouterResponse(None, self._error or "no policy") for _ in requests]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._answer, served, requests)

    def _answer(self, served: Served, requests: list[RouteRequest]) -> list[RouterResponse]:
        texts = tuple(request.query for request in requests)
        metrics.router_batch.observe(len(requests))
        with metrics.router_seconds.labels("encode").time():
            batch = QueryBatch(texts, _encode(served, texts))
        with metrics.router_seconds.labels("score").time():
            decisions = served.policy.decide(batch, requests)
        metrics.router_unfamiliar.inc(sum(decision.unfamiliar for decision in decisions if decision.ranking))
        return [RouterResponse(decision) for decision in decisions]

    def _load(self, config: RouterConfig) -> Served:
        folder = resolve(config.policy)
        policy = Policy.load(folder)
        if missing := sorted(set(config.experts or ()) - set(policy.pool.names)):
            raise PoolError(
                f"policy {policy.policy_id} does not cover the experts {', '.join(missing)}; "
                f"it covers {', '.join(policy.pool.names)}"
            )
        policy = policy.with_overrides(
            prices={name: price.as_price() for name, price in config.prices.items()},
            preferences=None if config.preferences is None else config.preferences.as_preferences(),
        )
        encoder, now = self._encoder(policy), self._served
        encoder.encode(["warm up"])
        if now is not None and now.encoder is encoder:
            return Served(policy, encoder, config.policy, now.embeddings)
        return Served(policy, encoder, config.policy)

    def _encoder(self, policy: Policy) -> Encoder:
        if self._served is not None and self._served.encoder.spec.sha256 == policy.encoder.sha256:
            return self._served.encoder
        name = policy.encoder if self._args.encoder == "default" else self._args.encoder
        encoder = load_encoder(_placed(name), device=self._args.device, threads=self._args.threads)
        if encoder.spec.sha256 != policy.encoder.sha256:
            raise PoolError(
                f"the policy was trained with encoder {policy.encoder.id} "
                f"({policy.encoder.sha256[:12]}), args.router.encoder is {encoder.spec.id} "
                f"({encoder.spec.sha256[:12]}): name the policy's encoder"
            )
        return encoder

    def _refuse(self, why: str) -> None:
        self._error = why
        metrics.config_refused.labels("Router").set(1)
        metrics.policy_swaps.labels("refused").inc()
        kept = "none" if self._served is None else self._served.policy.policy_id
        logger.error("policy refused, policy in force: %s; %s", kept, why)


def _encode(served: Served, texts: tuple[str, ...]) -> FloatArray:
    """Embeddings of `texts`, each distinct and unseen one encoded once."""
    known = served.embeddings
    metrics.router_cached.inc(sum(text in known for text in texts))
    missing = list(dict.fromkeys(text for text in texts if text not in known))
    fresh = dict(zip(missing, served.encoder.encode(missing), strict=True)) if missing else {}
    rows = [fresh[text] if text in fresh else known[text] for text in texts]
    for text in texts:
        known[text] = fresh[text] if text in fresh else known[text]
        known.move_to_end(text)
    while len(known) > CACHED_EMBEDDINGS:
        known.popitem(last=False)
    return np.stack(rows)


def _placed(encoder: str | EncoderSpec) -> str | EncoderSpec:
    """An encoder's folder made absolute; the id of a package or of the hub as it is."""
    folder = resolve(encoder if isinstance(encoder, str) else encoder.id)
    if not folder.is_dir():
        return encoder
    return str(folder) if isinstance(encoder, str) else replace(encoder, id=str(folder))


def _view(served: Served) -> PolicyView:
    policy = served.policy
    windows: Mapping[str, int] = {
        expert.name: expert.context_window for expert in policy.pool if expert.context_window is not None
    }
    return PolicyView(
        policy_id=policy.policy_id,
        experts=policy.pool.names,
        static_ranking=policy.static_ranking,
        context_windows=dict(windows),
        prices={expert.name: expert.price for expert in policy.pool if expert.price is not None},
        folder=served.folder,
        best_single=policy.training.get("best_single"),
        preferences=policy.preferences,
    )
