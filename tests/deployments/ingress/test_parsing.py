"""Where bodies are parsed."""

import threading

import pytest

from deployments.contracts.errors import BadRequest, Unavailable
from deployments.ingress.parsing import LARGE_BYTES, BodyParser


def where(raw: bytes) -> str:
    return threading.current_thread().name


async def test_small_bodies_are_parsed_at_once_and_large_ones_in_a_thread() -> None:
    parser = BodyParser(1.0)

    assert await parser.parse(where, bytes(LARGE_BYTES)) == threading.current_thread().name
    assert (await parser.parse(where, bytes(LARGE_BYTES + 1))).startswith("large-bodies")


async def test_a_fault_of_a_large_body_is_the_clients() -> None:
    def reject(raw: bytes) -> None:
        raise BadRequest("no JSON")

    with pytest.raises(BadRequest):
        await BodyParser(1.0).parse(reject, bytes(LARGE_BYTES + 1))


async def test_a_large_body_waits_a_bounded_time_for_others() -> None:
    released = threading.Event()
    try:
        with pytest.raises(Unavailable):
            await BodyParser(0.01).parse(lambda _: released.wait(5), bytes(LARGE_BYTES + 1))
    finally:
        released.set()
