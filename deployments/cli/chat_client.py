"""The endpoint's HTTP API as the chat uses it: prices, decisions, streaming answers.

Speaks the public API and nothing else; imports no Ray and prints nothing.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from router.errors import InputError

KEY_VARIABLE = "TO_ROUTER_KEY"
DONE = "[DONE]"
"""Data of the last event of a stream."""
Show = Callable[[str], None]
"""What happens with each piece of text as it arrives."""


class ChatError(InputError):
    """The endpoint returned an error or cannot be reached; the message has the reason."""


@dataclass
class Answer:
    """One answer with its reasoning, headers, usage and times."""

    expert: str
    attempts: int
    reason: str
    text: str = ""
    reasoning: str = ""
    """What the model thought before it answered; no part of the conversation."""
    usage: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    first_s: float = 0.0
    total_s: float = 0.0


class ChatClient:
    """Client of one endpoint.

    Args:
        http: a client whose base URL is the endpoint's.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._prices: dict[str, dict[str, float]] = {}
        self._policy: str | None = None
        self._has_page = False

    def read_prices(self) -> None:
        """Read the prices from the endpoint's page; without a page, answers have no dollars.

        Raises:
            ChatError: the endpoint returned an error.
        """
        response = self._http.get("/page/data/ask")
        if response.status_code == httpx.codes.OK:
            facts = response.json()
            self._prices, self._policy = facts["prices"], facts["policy_id"]
            self._has_page = True
        elif response.status_code != httpx.codes.NOT_FOUND:
            raise ChatError(error_line(response))

    def decide(self, body: dict[str, Any]) -> dict[str, Any]:
        """The decision for a request that is not sent.

        Raises:
            ChatError: the endpoint returned an error.
        """
        response = self._http.post("/v1/route", json=body)
        if response.status_code != httpx.codes.OK:
            raise ChatError(error_line(response))
        decision: dict[str, Any] = response.json()
        if self._has_page and decision.get("policy") not in {None, self._policy}:
            self.read_prices()  # another policy took effect
        return decision

    def answer(self, body: dict[str, Any], show_text: Show, show_reasoning: Show) -> Answer:
        """Send a request, and pass on text and reasoning as they arrive.

        Raises:
            ChatError: the endpoint returned an error, or something else than a stream of events.
        """
        began = time.monotonic()
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
                raise ChatError(error_line(response))
            headers = response.headers
            answer = Answer(
                headers.get("x-router-expert", body["model"]),
                int(headers.get("x-router-attempts", "1")),
                headers.get("x-router-reason", "named"),
            )
            for event in _events(response):
                answer.first_s = answer.first_s or time.monotonic() - began
                for text, reasoning in _pieces(event, answer):
                    show_reasoning(reasoning)
                    show_text(text)
        answer.total_s = time.monotonic() - began
        return answer

    def cost_usd(self, answer: Answer) -> float | None:
        """The cost of an answer in US$; `None` without a price or without usage."""
        price = self._prices.get(answer.expert)
        if price is None or not answer.usage:
            return None
        prompt, completion = answer.usage["prompt_tokens"], answer.usage["completion_tokens"]
        return float(prompt * price["input"] + completion * price["output"]) / 1e6


def _events(response: httpx.Response) -> Iterator[dict[str, Any]]:
    try:
        for sse in EventSource(response).iter_sse():
            if sse.data == DONE:
                continue
            event = json.loads(sse.data)
            if isinstance(event, dict):
                yield event
    except SSEError as error:
        raise ChatError(f"the response is not a stream of events: {error}") from None
    except json.JSONDecodeError as error:
        raise ChatError(f"the stream contained an event that is not JSON: {error}") from None


def _pieces(event: dict[str, Any], answer: Answer) -> Iterator[tuple[str, str]]:
    """Text and reasoning of one event, after they were added to the answer."""
    if "error" in event:
        answer.error = str(event["error"].get("message"))
    answer.usage = event.get("usage") or answer.usage
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        # `reasoning` in vLLM, `reasoning_content` in its older versions and elsewhere.
        reasoning = delta.get("reasoning") or delta.get("reasoning_content") or ""
        text = delta.get("content") or ""
        answer.reasoning += reasoning
        answer.text += text
        yield text, reasoning


def error_line(response: httpx.Response) -> str:
    """An error response in one line, with a hint where the user can do something."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = "a response that is not of this API"
    wait = response.headers.get("retry-after")
    hint = f"; put a key into {KEY_VARIABLE}" if response.status_code == httpx.codes.UNAUTHORIZED else ""
    return f"{response.status_code}: {message}{hint}{f'; try again in {wait} s' if wait else ''}"
