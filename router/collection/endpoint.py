"""An OpenAI-compatible endpoint for a client that sends it many requests: the client, and its retries."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import httpx
import tenacity

from router.errors import InputError

ATTEMPTS = 4
FIRST_WAIT_S = 1.0
"""Wait before the second attempt, doubled with each further one, unless the endpoint names a wait."""
LONGEST_WAIT_S = 30.0
RETRYABLE = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet."""
Result = TypeVar("Result")


class RetryableError(Exception):
    """A failed attempt that another one may better.

    Args:
        reason: the cause, for the person who reads the error of the last attempt.
        wait_s: time until the next attempt; `None` for the usual back-off.
    """

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason, wait_s)
        self.wait_s = wait_s

    def __str__(self) -> str:
        return str(self.args[0])


def open_client(
    endpoint: str, *, api_key: str | None, timeout_s: float, transport: httpx.AsyncBaseTransport | None
) -> httpx.AsyncClient:
    """A client whose paths begin at the endpoint.

    Raises:
        InputError: the endpoint is no URL.
    """
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        return httpx.AsyncClient(
            base_url=endpoint.rstrip("/"), headers=headers, timeout=timeout_s, transport=transport
        )
    except httpx.InvalidURL as error:
        raise InputError(
            f"endpoint {endpoint!r} is no URL ({error}): give one such as http://127.0.0.1:8000/v1"
        ) from error


async def listed_models(client: httpx.AsyncClient) -> dict[str, dict[str, Any]]:
    """The cards of the endpoint's models, by name.

    Raises:
        InputError: the endpoint does not respond, or returns no list of models.
    """
    try:
        response = await client.get("/models")
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise InputError(
            f"{client.base_url}models does not respond ({error or type(error).__name__})"
        ) from error
    try:
        return {str(card["id"]): dict(card) for card in response.json()["data"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{client.base_url}models does not return a list of models: is this an OpenAI endpoint?"
        ) from error


async def with_retries(
    attempt: Callable[[], Awaitable[Result]], *, sleep: Callable[[float], Awaitable[None]]
) -> Result:
    """The result of the first attempt that succeeds, of at most `ATTEMPTS`.

    Raises:
        RetryableError, httpx.TransportError: the last attempt's.
        Exception: anything else that an attempt raises, at once.
    """
    retrying = tenacity.AsyncRetrying(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        retry=tenacity.retry_if_exception_type((RetryableError, httpx.TransportError)),
        wait=_wait_s,
        sleep=sleep,
        reraise=True,
    )
    return await retrying(attempt)


def retry_after_s(response: httpx.Response) -> float | None:
    """The wait of a response's `Retry-After`, at most 30 s; `None` where it has none in seconds."""
    value = response.headers.get("retry-after", "")
    return min(float(value), LONGEST_WAIT_S) if value.replace(".", "", 1).isdecimal() else None


def _wait_s(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome is not None else None
    if isinstance(error, RetryableError) and error.wait_s is not None:
        return error.wait_s
    return FIRST_WAIT_S * 2.0 ** (state.attempt_number - 1)
