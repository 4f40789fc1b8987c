"""A simulated expert: an engine's manners and timing without an engine, for tests and load tests.

Answers the same `http` calls as `expert.Expert`, says in every answer that it is simulated, and
imports neither vLLM nor Ray, so that 64 of them fit on one machine. Its capacity is time: slots
over service time.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from deployments.contracts.endpoints import ENDPOINTS
from deployments.contracts.errors import BadRequest
from deployments.contracts.messages import Head, Headers, TraceContext
from deployments.contracts.requests import InferenceRequest, parse
from deployments.observability.tracing import CONTEXT_HEADERS, tracer
from deployments.replica import replica_name
from deployments.settings import explain
from deployments.simulated import bodies as answers
from deployments.simulated.args import Behaviour, Failure, SimulatedArgs
from deployments.simulated.pace import Pace, Slots

logger = logging.getLogger("ray.serve")

JSON = ((b"content-type", b"application/json"),)
EVENTS = ((b"content-type", b"text/event-stream; charset=utf-8"),)
PLAIN = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
GARBAGE = b"\x00\xff<html>not an answer of any API</html>\n" * 4
EMBEDDING = 8
"""Dimensions of its made-up embeddings."""
STEER = "simulate"
"""The body field that changes the behaviour for one request: expert name, or `*`, to settings."""
MOST_MESSAGES = 100_000


@dataclass(slots=True)
class Counts:
    """What happened so far; `asked` is the sum of the others and of what is running or waiting."""

    asked: int = 0
    answered: int = 0
    refused: int = 0
    failed: int = 0
    """On purpose."""
    aborted: int = 0
    """The caller left first."""
    prompt_tokens: int = 0
    generation_tokens: int = 0


class SimulatedExpert:
    """One replica of a simulated expert."""

    def __init__(
        self,
        args: SimulatedArgs,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self._args = args
        self._tracer = tracer("to-router-expert")
        self._behaviour = args.behaviour
        self._random = random.Random(args.seed)
        self._slots = Slots(args.behaviour.slots)
        self._counts = Counts()
        self._clock, self._sleep, self._die = clock, sleep, die

    async def reconfigure(self, user_config: Any) -> None:
        """Take over a `Behaviour`; a bad one is told in the log and changes nothing."""
        if user_config is None:
            return
        try:
            self._behave(Behaviour.model_validate(user_config))
        except ValidationError as error:
            logger.error("behaviour of simulated expert refused: %s", explain(error, "user_config"))

    async def behave(self, behaviour: dict[str, Any]) -> None:
        """Change the named settings of this replica; for all, call it by the handle's `broadcast`.

        Raises:
            ValidationError: a setting is unknown or out of range.
        """
        self._behave(Behaviour.model_validate({**self._behaviour.model_dump(), **behaviour}))

    async def counts(self) -> dict[str, Any]:
        """What this replica did so far, and what it is doing."""
        return {
            **asdict(self._counts),
            "running": self._slots.running,
            "waiting": self._slots.waiting,
            "pid": os.getpid(),
        }

    async def exposition(self) -> tuple[str, bytes]:
        """This replica's name and metrics."""
        return replica_name(), self._metrics()

    async def http(
        self, method: str, path: str, headers: Headers, body: bytes
    ) -> AsyncGenerator[Head | bytes, None]:
        """Answer as `vllm serve` would: a `Head`, then body bytes."""
        path = path.partition("?")[0]
        endpoint = ENDPOINTS.get(path)
        if method == "POST" and endpoint is not None:
            span = self._tracer.begin(f"expert {endpoint.kind}", _context(headers))
            parts = self._post(path, body)
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
            ask = parse(path, body, max_messages=MOST_MESSAGES)
            behaviour = self._steered(ask)
            self._check_length(ask)
        except BadRequest as error:
            self._counts.refused += 1
            yield _error(400, str(error), "BadRequestError")
            return
        failure = self._draw(behaviour)
        if failure is not None and failure.mode == "status":
            self._counts.failed += 1
            yield _error(failure.status, f"simulated failure of {self._args.name}")
            return
        if failure is not None and failure.mode == "raise":
            self._counts.failed += 1
            raise RuntimeError(f"simulated failure of {self._args.name}")
        if failure is not None and failure.mode == "die":
            logger.warning("simulated expert %s dies as told", self._args.name)
            self._die(1)
        ended = False
        parts = self._serve(ask, behaviour, failure)
        try:
            await self._slots.take()
            try:
                async for part in parts:
                    yield part
            finally:
                await parts.aclose()
                self._slots.give()
            ended = True
        finally:
            self._ended(failure, ended=ended)

    def _ended(self, failure: Failure | None, *, ended: bool) -> None:
        if not ended:
            self._counts.aborted += 1
        elif failure is not None:
            self._counts.failed += 1
        else:
            self._counts.answered += 1

    async def _serve(
        self, ask: InferenceRequest, behaviour: Behaviour, failure: Failure | None
    ) -> AsyncGenerator[Head | bytes, None]:
        """Within a slot."""
        mode = None if failure is None else failure.mode
        self._counts.prompt_tokens += ask.prompt_tokens
        pace = Pace(behaviour, self._random, self._clock, self._sleep)
        if mode == "hang":
            await asyncio.Event().wait()
        await pace.until(1)
        if mode == "garbage":
            yield Head(200, EVENTS if ask.stream else JSON, GARBAGE, complete=True)
        elif not ask.endpoint.streams:
            yield Head(200, JSON, _small_answer(ask, self._args.name), complete=True)
        elif ask.stream:
            async for part in self._streamed(ask, self._script(ask, behaviour), pace, failure):
                yield part
        else:
            yield await self._whole(ask, self._script(ask, behaviour), pace, failure)

    async def _whole(
        self, ask: InferenceRequest, script: answers.Script, pace: Pace, failure: Failure | None
    ) -> Head:
        await pace.until(len(script.words))
        body = answers.whole(ask.kind, script)
        if failure is not None and failure.mode == "stall":
            await asyncio.Event().wait()
        if failure is not None and failure.mode == "half_stream":
            body = body[: len(body) // 2]
        self._counts.generation_tokens += len(script.words)
        return Head(200, JSON, body, complete=True)

    async def _streamed(
        self, ask: InferenceRequest, script: answers.Script, pace: Pace, failure: Failure | None
    ) -> AsyncGenerator[Head | bytes, None]:
        """Each event when its token is due; those that are due together leave together."""
        begun, due, token = False, bytearray(), 0
        last = None if failure is None else failure.after_tokens
        for token, event in answers.events(ask.kind, script):
            if last is not None and token > last:
                break
            if due and not pace.is_due(token):
                yield bytes(due) if begun else Head(200, EVENTS, bytes(due), complete=False)
                begun = True
                due.clear()
            await pace.until(token)
            due += event
        self._counts.generation_tokens += token
        if due:
            yield bytes(due) if begun else Head(200, EVENTS, bytes(due), complete=False)
        elif not begun:
            yield Head(200, EVENTS, b"", complete=False)
        if failure is not None and failure.mode == "stall":
            await asyncio.Event().wait()

    def _script(self, ask: InferenceRequest, behaviour: Behaviour) -> answers.Script:
        text = ask.query if behaviour.echo else behaviour.text
        words = answers.words_of(self._args.name, text, behaviour.tokens)
        cut = ask.max_tokens is not None and ask.max_tokens < len(words)
        options = ask.body.get("stream_options")
        return answers.Script(
            model=self._args.name,
            words=words[: ask.max_tokens] if cut else words,
            prompt_tokens=ask.prompt_tokens,
            finish="length" if cut else "stop",
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        )

    def _steered(self, ask: InferenceRequest) -> Behaviour:
        """The behaviour in force, changed by what the request itself asks of this expert."""
        told = ask.body.get(STEER)
        if told is None:
            return self._behaviour
        if not isinstance(told, dict):
            raise BadRequest(f"{STEER} must be an object of expert names, found {type(told).__name__}")
        change = told.get(self._args.name, told.get("*", {}))
        if not isinstance(change, dict):
            raise BadRequest(f"{STEER} must hold objects, found {type(change).__name__}")
        try:
            return Behaviour.model_validate({**self._behaviour.model_dump(), **change})
        except ValidationError as error:
            raise BadRequest(explain(error, STEER)) from error

    def _check_length(self, ask: InferenceRequest) -> None:
        wanted = ask.longest_tokens + (ask.max_tokens or 0)
        if wanted > self._args.max_model_len:
            raise BadRequest(
                f"This model's maximum context length is {self._args.max_model_len} tokens. However, you "
                f"requested {wanted} tokens."
            )

    def _draw(self, behaviour: Behaviour) -> Failure | None:
        if not behaviour.failures:
            return None
        drawn = self._random.random()
        for failure in behaviour.failures:
            if drawn < failure.rate:
                return failure
            drawn -= failure.rate
        return None

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
        """The metrics of vLLM that say how busy an engine is, by vLLM's names."""
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
            f"vllm:prompt_tokens_total{labels} {counts.prompt_tokens}",
            "# HELP vllm:generation_tokens_total Number of generation tokens processed (simulated).",
            "# TYPE vllm:generation_tokens_total counter",
            f"vllm:generation_tokens_total{labels} {counts.generation_tokens}",
            "# HELP vllm:request_success_total Count of processed requests (simulated).",
            "# TYPE vllm:request_success_total counter",
            ended("stop", counts.answered),
            ended("abort", counts.aborted),
        ]
        return ("\n".join(lines) + "\n").encode()


def _context(headers: Headers) -> TraceContext:
    told = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return {name: told[name] for name in CONTEXT_HEADERS if name in told}


def _small_answer(ask: InferenceRequest, name: str) -> bytes:
    """/v1/embeddings and /tokenize: made up, the same for the same text."""
    usage = {"prompt_tokens": ask.prompt_tokens, "total_tokens": ask.prompt_tokens}
    if ask.kind == "tokenize":
        tokens = list(range(ask.prompt_tokens))
        return orjson.dumps({"count": len(tokens), "tokens": tokens, "simulated": True})
    inputs = ask.body.get("input")
    texts = inputs if isinstance(inputs, list) and all(isinstance(text, str) for text in inputs) else [inputs]
    data = []
    for index, text in enumerate(texts):
        drawn = random.Random(f"{name}:{text}")
        vector = [drawn.uniform(-1, 1) for _ in range(EMBEDDING)]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    return orjson.dumps({"object": "list", "data": data, "model": name, "usage": usage, "simulated": True})


def _error(status: int, message: str, type_: str = "InternalServerError") -> Head:
    return Head(status, JSON, answers.error(status, message, type_), complete=True)
