"""A second policy that scores every request for the log, off the request's path, and decides nothing.

It works in a thread of its own at a low priority, with an encoder of its own. A full queue drops requests
and counts them. Imports no Ray.
"""

import contextlib
import logging
import os
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from deployments.observability import metrics
from deployments.routing.served_policy import ServedPolicy
from router.core import Decision, QueryBatch, RouteRequest
from router.learning.record import Record, ShadowRecord

logger = logging.getLogger("ray.serve")

MOST_QUEUED = 1000
MOST_AT_ONCE = 16
"""Requests of one batch: a larger one would hold Python's lock for long."""
NICENESS = 10


class Shadow:
    """Scores requests for the log.

    Args:
        served: the second policy, whose encoder no other thread uses.
        write: takes the records; never blocks.
        now: seconds since 1970.
    """

    def __init__(
        self, served: ServedPolicy, write: Callable[[Record], None], now: Callable[[], float]
    ) -> None:
        self._served, self._write, self._now = served, write, now
        self._queue: queue.Queue[RouteRequest | None] = queue.Queue(MOST_QUEUED)
        self._thread = threading.Thread(target=self._run, name="shadow-policy", daemon=True)

    def start(self) -> None:
        """Begin to score."""
        self._thread.start()

    def submit(self, requests: Sequence[RouteRequest]) -> None:
        """Queue requests that have an id; never waits, never fails."""
        for request in requests:
            if not request.request_id:
                continue
            try:
                self._queue.put_nowait(request)
            except queue.Full:
                metrics.shadow_queries.labels("dropped").inc()

    def stop(self, wait_s: float = 5.0) -> None:
        """End within `wait_s`, with what is queued."""
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=wait_s)
        self._thread.join(wait_s)

    def _run(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        more = True
        while more:
            batch, more = self._next()
            if not batch:
                continue
            try:
                for record in self._score(batch):
                    self._write(record)
            except Exception:
                logger.exception("the shadow policy did not score a batch")
                metrics.shadow_queries.labels("failed").inc(len(batch))
            else:
                metrics.shadow_queries.labels("scored").inc(len(batch))

    def _next(self) -> tuple[list[RouteRequest], bool]:
        """The queued requests, at least one; false when it is the end."""
        batch: list[RouteRequest] = []
        request = self._queue.get()
        while True:
            if request is None:
                return batch, False
            batch.append(request)
            if len(batch) >= MOST_AT_ONCE:
                return batch, True
            try:
                request = self._queue.get_nowait()
            except queue.Empty:
                return batch, True

    def _score(self, requests: Sequence[RouteRequest]) -> list[ShadowRecord]:
        policy = self._served.policy
        texts = tuple(request.query for request in requests)
        batch = QueryBatch(texts, self._served.encoder.encode(texts))
        decisions = policy.decide(batch, requests, independent=True)
        time = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        return [
            _record(request.request_id, time, decision)
            for request, decision in zip(requests, decisions, strict=True)
        ]


def _record(request_id: str, time: str, decision: Decision) -> ShadowRecord:
    views = {**decision.experts, **{name: plan.view for name, plan in decision.plans.items()}}
    return ShadowRecord(
        request_id=request_id,
        time=time,
        policy=decision.policy_id,
        ranking=decision.ranking,
        scores={name: view.score for name, view in views.items()},
        costs_usd={name: view.cost_usd for name, view in views.items()},
    )
