"""A simulated engine: what it responds to one request, and when; no Ray, no HTTP.

Its texts are made up. Every draw comes from one seed, times come from the clock and the wait passed in.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable

import orjson

from deployments.contracts.messages import Head
from deployments.contracts.requests import InferenceRequest
from deployments.simulated import bodies, sums
from deployments.simulated.args import Behaviour, Failure
from deployments.simulated.pace import Pace

JSON = ((b"content-type", b"application/json"),)
EVENTS = ((b"content-type", b"text/event-stream; charset=utf-8"),)
GARBAGE = b"\x00\xff<html>not an answer of any API</html>\n" * 4
DIMENSIONS = 8
"""Of its made-up embeddings."""


class SimulatedEngine:
    """Produces responses, each part when it is due.

    Args:
        name: the expert's name.
        seed: of jitter and failures.
        clock: monotonic seconds.
        wait: waits for so many seconds.
    """

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        clock: Callable[[], float],
        wait: Callable[[float], Awaitable[None]],
    ) -> None:
        self._name = name
        self._random = random.Random(seed)
        self._clock, self._wait = clock, wait
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self._working = 0
        """Requests for which a token will be due; those that hang take no steps."""
        self._steps = 0

    def steps(self) -> int:
        """Return a number that changes while the engine works at any request."""
        self._steps += self._working > 0
        return self._steps

    def draw(self, behaviour: Behaviour) -> Failure | None:
        """Draw whether the next request fails, and how."""
        if not behaviour.failures:
            return None
        drawn = self._random.random()
        for failure in behaviour.failures:
            if drawn < failure.rate:
                return failure
            drawn -= failure.rate
        return None

    async def respond(
        self, request: InferenceRequest, behaviour: Behaviour, failure: Failure | None
    ) -> AsyncGenerator[Head | bytes, None]:
        """Respond to a request that has a slot: a `Head`, then body bytes.

        Args:
            request: the request.
            behaviour: times and texts.
            failure: the failure to simulate within the response; `None` for none.
        """
        mode = None if failure is None else failure.mode
        self.prompt_tokens += request.prompt_tokens
        pace = Pace(behaviour, self._random, self._clock, self._working_wait)
        if mode == "hang":
            await asyncio.Event().wait()
        await pace.until(1)
        if mode == "garbage":
            yield Head(200, EVENTS if request.stream else JSON, GARBAGE, complete=True)
        elif not request.endpoint.streams:
            yield Head(200, JSON, _small_response(request, self._name), complete=True)
        elif request.stream:
            async for part in self._stream(request, self._script(request, behaviour), pace, failure):
                yield part
        else:
            yield await self._complete(request, self._script(request, behaviour), pace, failure)

    async def _complete(
        self, request: InferenceRequest, script: bodies.Script, pace: Pace, failure: Failure | None
    ) -> Head:
        await pace.until(script.tokens)
        body = bodies.complete(request.kind, script)
        if failure is not None and failure.mode == "stall":
            await asyncio.Event().wait()
        if failure is not None and failure.mode == "half_stream":
            body = body[: len(body) // 2]
        self.generation_tokens += script.all_tokens
        return Head(200, JSON, body, complete=True)

    async def _stream(
        self, request: InferenceRequest, script: bodies.Script, pace: Pace, failure: Failure | None
    ) -> AsyncGenerator[Head | bytes, None]:
        """Each event when its token is due; those that are due together leave together."""
        begun, due, token = False, bytearray(), 0
        last = None if failure is None else failure.after_tokens
        for token, event in bodies.events(request.kind, script):
            if last is not None and token > last:
                break
            if due and not pace.is_due(token):
                yield bytes(due) if begun else Head(200, EVENTS, bytes(due), complete=False)
                begun = True
                due.clear()
            await pace.until(token)
            due += event
        self.generation_tokens += min(token * len(script.completions), script.all_tokens)
        if due:
            yield bytes(due) if begun else Head(200, EVENTS, bytes(due), complete=False)
        elif not begun:
            yield Head(200, EVENTS, b"", complete=False)
        if failure is not None and failure.mode == "stall":
            await asyncio.Event().wait()

    async def _working_wait(self, seconds: float) -> None:
        self._working += 1
        try:
            await self._wait(seconds)
        finally:
            self._working -= 1

    def _script(self, request: InferenceRequest, behaviour: Behaviour) -> bodies.Script:
        fields = orjson.loads(request.fields) if _has_choices(request) else {}
        logprobs = fields.get("logprobs")  # of completions a number of alternatives, and 0 is no `false`
        return bodies.Script(
            model=self._name,
            completions=tuple(
                self._completion(request, behaviour, sample).cut(request.max_tokens)
                for sample in range(max(1, fields.get("n") or 1))
            ),
            prompt_tokens=request.prompt_tokens,
            include_usage=request.endpoint.usage_option and not request.hides_usage,
            with_logprobs=logprobs is not None and logprobs is not False,
        )

    def _completion(self, request: InferenceRequest, behaviour: Behaviour, sample: int) -> bodies.Completion:
        if behaviour.sums is not None:
            return sums.answer(self._name, request.query, behaviour.sums, sample, tokens=behaviour.tokens)
        text = request.query if behaviour.echo else behaviour.text
        return bodies.completion_of(self._name, text, behaviour.tokens)


def _has_choices(request: InferenceRequest) -> bool:
    """Whether a request may have several completions or log-probabilities; most have neither field."""
    return request.kind in {"chat", "completions"} and (
        b'"logprobs"' in request.fields or b'"n"' in request.fields
    )


def _small_response(request: InferenceRequest, name: str) -> bytes:
    """/v1/embeddings and /tokenize: made up, the same for the same text."""
    usage = {"prompt_tokens": request.prompt_tokens, "total_tokens": request.prompt_tokens}
    if request.kind == "tokenize":
        tokens = list(range(request.prompt_tokens))
        return orjson.dumps({"count": len(tokens), "tokens": tokens, "simulated": True})
    if request.kind == "count_tokens":
        return orjson.dumps({"input_tokens": request.prompt_tokens, "simulated": True})
    inputs = orjson.loads(request.fields).get("input")
    texts = inputs if isinstance(inputs, list) and all(isinstance(text, str) for text in inputs) else [inputs]
    data = []
    for index, text in enumerate(texts):
        drawn = random.Random(f"{name}:{text}")
        vector = [drawn.uniform(-1, 1) for _ in range(DIMENSIONS)]
        data.append({"object": "embedding", "index": index, "embedding": vector})
    return orjson.dumps({"object": "list", "data": data, "model": name, "usage": usage, "simulated": True})
