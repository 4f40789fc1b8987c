"""Retries are bounded, and wait as long as the endpoint requests."""

import httpx
import pytest

from router.collection.endpoint import ATTEMPTS, RetryableError, open_client, retry_after_s, with_retries
from router.errors import InputError


class Attempts:
    """A call that raises these errors in turn, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0
        self.waits: list[float] = []

    async def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


async def test_a_named_wait_replaces_the_back_off() -> None:
    attempts = Attempts(RetryableError("busy"), RetryableError("busy", 0.25), httpx.ConnectError("gone"))

    assert await with_retries(attempts, sleep=attempts.sleep) == "done"
    assert attempts.waits == [1.0, 0.25, 4.0]


async def test_the_last_attempts_error_is_raised() -> None:
    attempts = Attempts(*(RetryableError(f"busy {number}") for number in range(9)))
    with pytest.raises(RetryableError, match=f"busy {ATTEMPTS - 1}"):
        await with_retries(attempts, sleep=attempts.sleep)

    assert attempts.count == ATTEMPTS


async def test_other_errors_are_not_retried() -> None:
    attempts = Attempts(InputError("no"))
    with pytest.raises(InputError):
        await with_retries(attempts, sleep=attempts.sleep)

    assert (attempts.count, attempts.waits) == (1, [])


@pytest.mark.parametrize(
    ("header", "wait"),
    [("7", 7.0), ("0.5", 0.5), ("9999", 30.0), ("-1", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)
def test_retry_after_is_read_in_seconds_within_bounds(header: str, wait: float | None) -> None:
    assert retry_after_s(httpx.Response(503, headers={"retry-after": header})) == wait


def test_an_endpoint_that_is_no_url_is_rejected() -> None:
    with pytest.raises(InputError, match="is no URL"):
        open_client("http://host:port/v1", api_key=None, timeout_s=1, transport=None)
