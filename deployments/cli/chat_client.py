"""The endpoint's HTTP API as the chat uses it: prices, decisions, streaming answers.

Speaks the public API and nothing else; imports no Ray and prints nothing.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from httpx_sse import EventSource, SSEError

from router.collection.chat_events import DONE, ChatEvent, read_event
from router.errors import InputError

KEY_VARIABLE = "TO_ROUTER_KEY"
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
    usage: dict[str, int] = field(default_factory=dict)
    error: str | None = None
    first_s: float = 0.0
    total_s: float = 0.0
    plan: str | None = None
    """The plan that was carried out; `None` where an expert was chosen."""
    accepted: bool = False
    """Whether the plan accepted its members' answer."""


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
            facts = _object(response)
            self._prices, self._policy = facts.get("prices") or {}, facts.get("policy_id")
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
        decision = _object(response)
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
                plan=headers.get("x-router-plan"),
                accepted=headers.get("x-router-accepted") == "true",
            )
            for event in _events(response):
                answer.first_s = answer.first_s or time.monotonic() - began
                answer.reasoning += event.reasoning
                answer.text += event.text
                answer.usage = event.usage or answer.usage
                answer.error = event.error or answer.error
                show_reasoning(event.reasoning)
                show_text(event.text)
        answer.total_s = time.monotonic() - began
        return answer

    def cost_usd(self, answer: Answer) -> float | None:
        """The cost of an answer in US$; `None` without a price or without usage."""
        price = self._prices.get(answer.expert)
        prompt, completion = answer.usage.get("prompt_tokens"), answer.usage.get("completion_tokens")
        if price is None or prompt is None or completion is None:
            return None
        return float(prompt * price["input"] + completion * price["output"]) / 1e6


def _events(response: httpx.Response) -> Iterator[ChatEvent]:
    try:
        for sse in EventSource(response).iter_sse():
            if sse.data != DONE:
                yield read_event(sse.data)
    except SSEError as error:
        raise ChatError(f"the response is not a stream of events: {error}") from None
    except ValueError as error:
        raise ChatError(f"the stream contained {error}") from None


def _object(response: httpx.Response) -> dict[str, Any]:
    """A response's JSON object; a ChatError for anything else, as a web server of another kind returns it."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise ChatError(f"{response.url.path} returned no JSON object: is this a TO-Router endpoint?")
    return body


def error_line(response: httpx.Response) -> str:
    """An error response in one line, with a hint where the user can do something."""
    try:
        message = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        message = "a response that is not of this API"
    wait = response.headers.get("retry-after")
    hint = f"; put a key into {KEY_VARIABLE}" if response.status_code == httpx.codes.UNAUTHORIZED else ""
    return f"{response.status_code}: {message}{hint}{f'; try again in {wait} s' if wait else ''}"
