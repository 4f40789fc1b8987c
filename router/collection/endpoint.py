"""An OpenAI-compatible endpoint for those who ask it many questions: how to open it, when to ask again."""

import httpx

from router.errors import InputError

LONGEST_WAIT_S = 30.0
PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that another attempt may not meet."""


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


def retry_after_s(response: httpx.Response) -> float | None:
    """The wait that the endpoint asks for, within bounds; `None` when it does not say."""
    given = response.headers.get("retry-after", "")
    return min(float(given), LONGEST_WAIT_S) if given.replace(".", "", 1).isdecimal() else None
