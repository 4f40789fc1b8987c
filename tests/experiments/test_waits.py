"""The simulated engines keep their own pace, and every choice meets the same requests."""

import math
import random
from collections.abc import Iterator

import pytest

from experiments import waits
from experiments.waits import Engine, Request, Speed, arrivals, run, today


def request(completion: int = 10) -> Request:
    return Request(0.0, "math", prompt=100, completion=completion, ingress=0)


def finish(engine: Engine) -> None:
    while engine.next_at() < math.inf:
        engine.step()


def test_a_request_alone_takes_prefill_and_tokens() -> None:
    engine, one = Engine(Speed(2, 0.1, 0.001, 0.02, 0.01)), request()
    engine.add(0.0, one)
    finish(engine)

    assert one.first_at == pytest.approx(0.1 + 0.1 + 0.03)
    assert one.ended_at == pytest.approx(0.2 + 10 * 0.03)


def test_a_request_beyond_the_slots_waits() -> None:
    engine, one, two = Engine(Speed(1, 0.1, 0.0, 0.02, 0.01)), request(), request()
    engine.add(0.0, one)
    engine.add(0.0, two)
    finish(engine)

    assert len(engine.waiting) == 0
    assert two.first_at == pytest.approx(one.ended_at + 0.1 + 0.03)


def test_a_batch_slows_its_requests() -> None:
    engine, one, two = Engine(Speed(2, 0.0, 0.0, 0.02, 0.01)), request(), request()
    engine.add(0.0, one)
    engine.add(0.0, two)
    finish(engine)

    assert one.ended_at == pytest.approx(10 * 0.04)
    assert two.ended_at == pytest.approx(one.ended_at)


def test_bursts_bring_as_many_requests_as_a_steady_rate() -> None:
    steady = len(list(arrivals(0.9, random.Random(0), bursts=False)))
    bursts = len(list(arrivals(0.9, random.Random(0), bursts=True)))

    assert bursts == pytest.approx(steady, rel=0.1)


def test_every_choice_meets_the_same_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "SECONDS", 5.0)
    plain = run(today, 0.3, 0, bursts=False, ingresses=1)
    priced = run(waits.priced(0.01), 0.3, 0, bursts=False, ingresses=2)

    assert [(one.at, one.task, one.completion) for one in plain] == [
        (one.at, one.task, one.completion) for one in priced
    ]
    assert all(one.ended_at < math.inf for one in [*plain, *priced])


def test_two_equal_experts_share_a_step_of_load_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    equal = waits.SPEEDS[1]
    monkeypatch.setattr(waits, "SPEEDS", (equal, equal, equal))
    monkeypatch.setattr(waits, "QUALITY", {"equal": (1, 0.8, 0.8, 0.0)})
    monkeypatch.setattr(waits, "CAPACITY_PER_S", 2 * equal.per_s)
    monkeypatch.setattr(waits, "SECONDS", 100.0)
    monkeypatch.setattr(waits, "arrivals", step)
    requests = run(waits.priced(0.05), 0.9, 0, bursts=False, ingresses=2)
    for begin in (40.0, 60.0, 80.0):
        window = [one.expert for one in requests if begin <= one.at < begin + 20]
        assert window.count(0) / len(window) == pytest.approx(0.5, abs=0.15)


def step(load: float, rng: random.Random, *, bursts: bool) -> Iterator[float]:
    """Three times the requests from 30 s on."""
    at = 0.0
    while at < waits.SECONDS:
        at += rng.expovariate(waits.CAPACITY_PER_S * (load if at >= 30 else load / 3))
        yield at
