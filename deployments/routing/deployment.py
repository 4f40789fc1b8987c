"""The router deployment: a batch of queries in, a decision for each out.

A thin shell around `served_policy`: it reconfigures, batches and delegates. Stateless but for the policy
in effect and a bounded cache of embeddings, so any replica can decide on any query.
"""

import asyncio
import gc
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from deployments.canary.messages import CanaryTransport
from deployments.canary.ray_coordinator import CoordinatorHandle
from deployments.config import RouterArgs, RouterConfig
from deployments.contracts.messages import RouterResponse, RouterState, TraceContext
from deployments.last_good import LastGood
from deployments.observability import metrics, tracing
from deployments.replica import replica_id, replica_name, replica_path
from deployments.routing.batching import Batcher
from deployments.routing.loop_budget import LoopBudget
from deployments.routing.prior import configured_experts, prior_folder
from deployments.routing.served_policy import ServedPolicy, load, load_saved
from deployments.routing.trials import Trials
from deployments.settings import resolve, state_folder
from deployments.upstream.discovery import applications
from router.core import Decision, RouteRequest
from router.errors import RouterError
from router.validation import explain

logger = logging.getLogger("ray.serve")

FOLLOW_S = 15.0
"""Time between two looks at the experts of the graph, while no policy is configured."""
QUEUE_SECONDS = metrics.router_seconds.labels("queue")
BATCH_TIMEOUT_S = 10.0
"""A batch that takes longer hangs: one takes milliseconds, seconds on a busy processor."""


def _applications() -> Mapping[str, Any]:
    """Serve's applications by name; none in a process that is no replica, which must not start Ray."""
    return {} if replica_path() is None else applications()


def _coordinator() -> CanaryTransport:
    return CoordinatorHandle(str(state_folder() / "canaries.json"))


class Router:
    """Scores and decides with the policy that `user_config` names.

    Args:
        args: shape of the deployment.
        last_good: keeps the last valid configuration and its policy.
        applications: reads Serve's applications by name, where no policy is configured; blocks.
        on_loop: which batches are short enough for the event loop.
        trials: canary and shadow.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        args: RouterArgs,
        *,
        last_good: LastGood | None = None,
        applications: Callable[[], Mapping[str, Any]] | None = None,
        on_loop: LoopBudget | None = None,
        trials: Trials | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._args = args
        self._last_good = LastGood(replica_path) if last_good is None else last_good
        self._trials = trials or Trials(args, self._last_good, _coordinator, replica_id)
        self._served: ServedPolicy | None = None
        self._applications = _applications if applications is None else applications
        self._watch: asyncio.Task[None] | None = None
        self._error: str | None = "no policy is configured: user_config of Router names none"
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="router")
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="policy-loader")
        self._tracer = tracing.tracer("to-router-router")
        self._on_loop = LoopBudget() if on_loop is None else on_loop
        self._batches = Batcher(
            self._decide_batch, max_size=args.max_batch_size, wait_s=args.batch_wait_ms / 1000, clock=clock
        )

    async def reconfigure(self, user_config: Any) -> None:
        """Put a new `user_config` into effect, or keep the last good one and record the error.

        A replica that starts with an invalid one starts from the last valid one of this deployment.
        Never raises: Serve would stop this replica, which still decides well, and start one that
        cannot.
        """
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await self._apply(user_config)
        if not user_config or (isinstance(user_config, Mapping) and user_config.get("policy") is None):
            self._watch = asyncio.create_task(self._follow(user_config))

    async def _apply(self, user_config: Any) -> None:
        loop, starts = asyncio.get_running_loop(), self._served is None
        try:
            config = RouterConfig.model_validate(user_config or {})
            configured = config.policy is not None
            if not configured:
                config = await loop.run_in_executor(self._loader, self._with_prior, config)
            served = await loop.run_in_executor(self._loader, load, config, self._args, self._served)
            loaded = await loop.run_in_executor(self._loader, self._trials.load, config, served)
        except ValidationError as error:
            await self._reject(explain(error, "user_config"))
        except (RouterError, OSError) as error:
            await self._reject(f"{type(error).__name__}: {error}")
        except Exception as error:
            logger.exception("policy rejected for an unforeseen reason")
            await self._reject(f"unforeseen {type(error).__name__}: {error}")
        else:
            self._served, self._error = served, None
            await self._trials.apply(loaded)
            metrics.config_refused.labels("Router").set(0)
            metrics.config_restored.labels("Router").set(0)
            metrics.policy_swaps.labels("accepted").inc()
            policy = self._served.policy.policy_id
            logger.info("policy %s loaded from %s", policy, self._served.folder)
            if not configured:
                logger.warning("no policy is configured: %s, made from priors, is in effect", policy)
            if starts:
                # What lives as long as the replica is no work for the collector, which batches call often.
                # Not at a swap: a whole collection takes as long as requests wait for a decision.
                gc.collect()
                gc.freeze()
            await loop.run_in_executor(
                self._loader, self._last_good.save, user_config, (policy, resolve(self._served.folder))
            )

    def _with_prior(self, config: RouterConfig) -> RouterConfig:
        """The configuration with the policy from priors over the graph's experts; blocks."""
        folder = prior_folder(configured_experts(self._applications()), self._args)
        return config.model_copy(update={"policy": str(folder)})

    async def _follow(self, user_config: Any) -> None:
        """Make the prior policy again when the graph's experts have changed, until cancelled."""
        loop, served = asyncio.get_running_loop(), self._served
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                config = await loop.run_in_executor(
                    self._loader, self._with_prior, RouterConfig.model_validate(user_config or {})
                )
            except Exception as error:  # noqa: BLE001 - Ray's or the library's: the policy in effect stays
                logger.info("the experts are not known: %s", type(error).__name__)
                continue
            if served is None or config.policy != served.folder:
                await self._apply(user_config)
                served = self._served

    async def decide(
        self, requests: Sequence[RouteRequest], traces: Sequence[TraceContext] = ()
    ) -> list[RouterResponse]:
        """Decide on requests, in their order; the reason for no decision is a value too, never an exception.

        An exception inside a batch would fail every request of that batch.

        Args:
            requests: the requests of one call.
            traces: the trace contexts of those that have one.
        """
        spans = [self._tracer.begin("router decide", trace) for trace in traces]
        arrival = time.monotonic()
        try:
            return await self._batches.submit([(request, arrival) for request in requests])
        finally:
            for span in spans:
                span.end()

    async def exposition(self) -> tuple[str, bytes]:
        """Return this replica's name and metrics."""
        metrics.tasks.set(len(asyncio.all_tasks()))
        return replica_name(), metrics.exposition()

    def describe(self) -> RouterState:
        """Return the policy in effect, and why this replica does not serve the last configuration."""
        served = self._served
        return RouterState(
            policy=None if served is None else served.view(),
            error=self._hangs() or self._error,
            canary=self._trials.view(),
        )

    async def check_health(self) -> None:
        """Check for Serve, which replaces a replica that fails, that batches come to an end.

        Raises:
            RuntimeError: the one in process does not.
        """
        if why := self._hangs():
            raise RuntimeError(why)

    def _hangs(self) -> str | None:
        age_s = self._batches.batch_age_s
        return f"a batch has taken {age_s:.0f} s so far" if age_s > BATCH_TIMEOUT_S else None

    async def _decide_batch(self, queued: list[tuple[RouteRequest, float]]) -> list[RouterResponse]:
        served, now = self._served, time.monotonic()
        for _, arrival in queued:
            QUEUE_SECONDS.observe(now - arrival)
        requests = [request for request, _ in queued]
        if served is None:
            return [RouterResponse(None, self._error or "no policy") for _ in requests]
        metrics.router_batch.observe(len(requests))
        lengths = [len(request.query) for request in requests]
        if served.is_light and self._trials.is_light and self._on_loop.fits(lengths):
            decisions, seconds = self._timed(served, requests)
        else:
            loop = asyncio.get_running_loop()
            decisions, seconds = await loop.run_in_executor(self._worker, self._timed, served, requests)
        self._on_loop.measured(lengths, seconds)
        self._trials.score(requests)
        return [RouterResponse(decision) for decision in decisions]

    def _timed(self, served: ServedPolicy, requests: Sequence[RouteRequest]) -> tuple[list[Decision], float]:
        """Decisions, and the thread's seconds on a processor: on a busy machine everything takes long."""
        began = time.thread_time()
        return self._trials.decide(served, requests), time.thread_time() - began

    async def _reject(self, why: str) -> None:
        self._error = why
        metrics.config_refused.labels("Router").set(1)
        metrics.policy_swaps.labels("refused").inc()
        if self._served is None:
            await asyncio.get_running_loop().run_in_executor(self._loader, self._restore, why)
        kept = "none" if self._served is None else self._served.policy.policy_id
        logger.error("policy rejected, policy in effect: %s; %s", kept, why)

    def _restore(self, why: str) -> None:
        """Start from the last valid configuration, where there is one; blocks."""
        saved = self._last_good.load()
        if saved is None or saved.policy_id is None:
            return
        try:
            copy = self._last_good.policy_folder(saved.policy_id)
            self._served = load_saved(saved, copy, self._args)
        except Exception as error:
            logger.exception("the saved configuration does not take effect either")
            self._error = f"{why}; the one saved at {saved.saved_at} fails too: {type(error).__name__}"
            return
        metrics.config_restored.labels("Router").set(1)
        self._error = f"{why}; the last valid configuration, saved at {saved.saved_at}, is in effect"
