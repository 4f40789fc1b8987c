"""A simulated expert: the interface and timing of an engine without one, for tests and load tests.

Takes the same `http` calls as `expert.Expert`, states in every response that it is simulated, and
imports neither vLLM nor Ray, so that 64 of them fit on one machine. Its capacity is time: slots
over service time.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
from pydantic import ValidationError

from deployments.contracts import heartbeats
from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.errors import BadRequest
from deployments.contracts.messages import Head, Headers, ReplicaLoad, TraceContext
from deployments.contracts.requests import InferenceRequest, parse
from deployments.observability.tracing import CONTEXT_HEADERS, tracer
from deployments.replica import replica_name
from deployments.simulated import bodies
from deployments.simulated.args import Behaviour, Failure, SimulatedArgs
from deployments.simulated.engine import JSON, SimulatedEngine
from deployments.simulated.pace import Slots
from router.validation import explain

logger = logging.getLogger("ray.serve")

PLAIN = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
STEER = "simulate"
"""The body field that changes the behaviour for one request: expert name, or `*`, to settings."""
STEER_FIELD = orjson.dumps(STEER)
MAX_MESSAGES = 100_000


@dataclass(slots=True)
class Counts:
    """Requests so far; `asked` is the sum of the others and of those that run or wait."""

    asked: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    """By simulated failures."""
    aborted: int = 0
    """The caller left first."""


class SimulatedExpert:
    """One replica of a simulated expert.

    Args:
        args: shape and first behaviour.
        clock: monotonic seconds.
        wait: waits for so many seconds.
        die: ends the process with a status.
    """

    def __init__(
        self,
        args: SimulatedArgs,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self._args = args
        self._tracer = tracer("to-router-expert")
        self._behaviour = args.behaviour
        self._slots = Slots(args.behaviour.slots)
        self._counts = Counts()
        self._engine = SimulatedEngine(args.name, seed=args.seed, clock=clock, wait=wait)
        self._die = die

    async def reconfigure(self, user_config: Any) -> None:
        """Put a `Behaviour` into effect; an invalid one is logged and changes nothing."""
        if user_config is None:
            return
        try:
            self._behave(Behaviour.model_validate(user_config))
        except ValidationError as error:
            logger.error("behaviour of simulated expert rejected: %s", explain(error, "user_config"))

    async def behave(self, behaviour: dict[str, Any]) -> None:
        """Change the named settings of this replica; for all, call it by the handle's `broadcast`.

        Raises:
            ValidationError: a setting is unknown or out of range.
        """
        self._behave(Behaviour.model_validate({**self._behaviour.model_dump(), **behaviour}))

    async def counts(self) -> dict[str, Any]:
        """Return the counts of this replica's requests."""
        return {
            **asdict(self._counts),
            "prompt_tokens": self._engine.prompt_tokens,
            "generation_tokens": self._engine.generation_tokens,
            "running": self._slots.running,
            "waiting": self._slots.waiting,
            "pid": os.getpid(),
        }

    async def exposition(self) -> tuple[str, bytes]:
        """Return this replica's name and metrics."""
        return replica_name(), self._metrics()

    async def http(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> AsyncGenerator[Head | bytes, None]:
        """Respond as `vllm serve` would: a `Head`, then body bytes."""
        path = path.partition("?")[0]
        endpoint = ENDPOINTS.get(path)
        if method == "POST" and endpoint is not None:
            span = self._tracer.begin(f"expert {endpoint.kind}", _context(headers))
            parts = self._post(path, body)
            if heartbeats.are_wanted(headers):
                parts = heartbeats.with_heartbeats(parts, self._engine.steps)
            try:
                async for part in parts:
                    yield part
            finally:
                await parts.aclose()
                span.end()
        elif method == "GET" and path == "/health":
            yield Head(200, (), b"", complete=True)
        elif method == "GET" and path == "/v1/models":
            yield Head(200, JSON, self._models(), complete=True)
        elif method == "GET" and path == "/metrics":
            yield Head(200, PLAIN, self._metrics(), complete=True)
        else:
            yield _error(404, "Not Found", "NotFoundError")

    def _behave(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._slots.resize(behaviour.slots)

    async def _post(self, path: str, body: bytes) -> AsyncGenerator[Head | bytes, None]:
        self._counts.asked += 1
        try:
            request = parse(path, body, max_messages=MAX_MESSAGES)
            behaviour = self._steered(request)
            self._check_length(request)
        except BadRequest as error:
            self._counts.refused += 1
            yield _error(400, str(error), "BadRequestError")
            return
        failure = self._engine.draw(behaviour)
        if failure is not None and failure.mode == "status":
            self._counts.failed += 1
            yield _error(failure.status, f"simulated failure of {self._args.name}")
            return
        if failure is not None and failure.mode == "raise":
            self._counts.failed += 1
            raise RuntimeError(f"simulated failure of {self._args.name}")
        if failure is not None and failure.mode == "die":
            logger.warning("simulated expert %s ends its process as configured", self._args.name)
            self._die(1)
        ended = False
        parts = self._engine.respond(request, behaviour, failure)
        try:
            await self._slots.acquire()
            try:
                async for part in parts:
                    yield replace(part, load=self._load()) if isinstance(part, Head) else part
            finally:
                await parts.aclose()
                self._slots.release()
            ended = True
        finally:
            self._ended(failure, ended=ended)

    def _load(self) -> ReplicaLoad:
        return ReplicaLoad(self._slots.running, self._slots.waiting)

    def _ended(self, failure: Failure | None, *, ended: bool) -> None:
        if not ended:
            self._counts.aborted += 1
        elif failure is not None:
            self._counts.failed += 1
        else:
            self._counts.answered += 1

    def _steered(self, request: InferenceRequest) -> Behaviour:
        """Return the behaviour in effect, with the changes for this expert that the request contains."""
        steering = orjson.loads(request.fields).get(STEER) if STEER_FIELD in request.fields else None
        if steering is None:
            return self._behaviour
        if not isinstance(steering, dict):
            raise BadRequest(f"{STEER} must be an object of expert names, found {type(steering).__name__}")
        change = steering.get(self._args.name, steering.get("*", {}))
        if not isinstance(change, dict):
            raise BadRequest(f"{STEER} must hold objects, found {type(change).__name__}")
        try:
            return Behaviour.model_validate({**self._behaviour.model_dump(), **change})
        except ValidationError as error:
            raise BadRequest(explain(error, STEER)) from error

    def _check_length(self, request: InferenceRequest) -> None:
        length = request.longest_tokens + (request.max_tokens or 0)
        if length > self._args.max_model_len:
            raise BadRequest(
                f"This model's maximum context length is {self._args.max_model_len} tokens. However, you "
                f"requested {length} tokens."
            )

    def _models(self) -> bytes:
        card = {
            "id": self._args.name,
            "object": "model",
            "created": 0,
            "owned_by": "simulated",
            "max_model_len": self._args.max_model_len,
        }
        return orjson.dumps({"object": "list", "data": [card]})

    def _metrics(self) -> bytes:
        """Return vLLM's metrics of an engine's load, by vLLM's names."""
        name, counts = self._args.name, self._counts
        labels = f'{{engine="0",model_name="{name}"}}'

        def ended(reason: str, count: int) -> str:
            labels = f'{{engine="0",finished_reason="{reason}",model_name="{name}"}}'
            return f"vllm:request_success_total{labels} {count}"

        lines = [
            "# HELP vllm:num_requests_running Number of requests in model execution batches (simulated).",
            "# TYPE vllm:num_requests_running gauge",
            f"vllm:num_requests_running{labels} {self._slots.running}",
            "# HELP vllm:num_requests_waiting Number of requests waiting to be processed (simulated).",
            "# TYPE vllm:num_requests_waiting gauge",
            f"vllm:num_requests_waiting{labels} {self._slots.waiting}",
            "# HELP vllm:prompt_tokens_total Number of prefill tokens processed (simulated).",
            "# TYPE vllm:prompt_tokens_total counter",
            f"vllm:prompt_tokens_total{labels} {self._engine.prompt_tokens}",
            "# HELP vllm:generation_tokens_total Number of generation tokens processed (simulated).",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{labels} {self._engine.generation_tokens}",
            "# HELP vllm:request_success_total Count of processed requests (simulated).",
            "# TYPE vllm:request_success_total counter",
            ended("stop", counts.answered),
            ended("abort", counts.aborted),
        ]
        return ("\n".join(lines) + "\n").encode()


def _context(headers: Headers) -> TraceContext:
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return {name: texts[name] for name in CONTEXT_HEADERS if name in texts}


def _error(status: int, message: str, type_: str = "InternalServerError") -> Head:
    return Head(status, JSON, bodies.error(status, message, type_), complete=True)
