"""Broadcasts: the other replicas are reported although one hangs, is dead or is gone."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from deployments.observability import metrics
from deployments.observability.broadcast import Replicas
from tests.deployments.fakes import Clock

RUNNING = b"# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 2\n"


class FakeHandle:
    """A deployment whose replicas return given results."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []

    def broadcast(self, method: str, *given: Any) -> "FakeHandle":
        self.asked.append((method, *given))
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert timeout_s > 0
        assert return_exceptions
        if len(self.answers) == 1 and isinstance(self.answers[0], DeploymentUnavailableError):
            raise self.answers[0]
        return list(self.answers)


def replicas(
    handles: dict[tuple[str, str], FakeHandle], experts: Callable[[], dict[str, str]] = dict, **options: Any
) -> Replicas:
    return Replicas(
        lambda: ("app#Ingress#1", b"own 1\n"),
        handles["Router", "app"],
        experts,
        here=lambda: ("Ingress", "app"),
        handle_for=lambda deployment, app: handles[deployment, app],
        **options,
    )


def unscraped(kind: str) -> float:
    return float(metrics.unscraped.labels(kind)._value.get())


async def test_every_replica_is_reported_once_and_engines_by_their_metrics() -> None:
    handles = {
        ("Ingress", "app"): FakeHandle(("app#Ingress#1", b"stale 1\n"), ("app#Ingress#2", b"own 2\n")),
        ("Router", "app"): FakeHandle(("app#Router#1", b"own 3\n")),
        ("Expert", "expert-a"): FakeHandle(("expert-a#Expert#1", RUNNING + b"python_gc 1\n")),
    }
    text = await replicas(handles, lambda: {"a": "expert-a"}).metrics()

    assert text.decode().splitlines() == [
        'own{replica="app#Ingress#1"} 1',
        'own{replica="app#Ingress#2"} 2',
        'own{replica="app#Router#1"} 3',
        "# TYPE vllm:num_requests_running gauge",
        'vllm:num_requests_running{replica="expert-a#Expert#1"} 2',
    ]


async def test_the_boards_metrics_call_no_expert() -> None:
    handles = {
        ("Ingress", "app"): FakeHandle(("app#Ingress#2", b"own 2\n")),
        ("Router", "app"): FakeHandle(("app#Router#1", b"own 3\n")),
        ("Expert", "expert-a"): FakeHandle(("expert-a#Expert#1", RUNNING)),
    }
    text = await replicas(handles, lambda: {"a": "expert-a"}).metrics_without_engines()

    assert [line[-1] for line in text.decode().splitlines()] == ["1", "2", "3"]
    assert handles["Expert", "expert-a"].asked == []


@pytest.mark.parametrize(
    "failure", [TimeoutError(), DeploymentUnavailableError(DeploymentID("Expert", "expert-a"))]
)
async def test_a_replica_without_response_is_left_out_and_counted(failure: Exception) -> None:
    handles = {
        ("Ingress", "app"): FakeHandle(TimeoutError(), ("app#Ingress#2", b"own 2\n")),
        ("Router", "app"): FakeHandle(("app#Router#1", b"own 3\n")),
        ("Expert", "expert-a"): FakeHandle(failure),
    }
    before = unscraped("ingress"), unscraped("expert")
    text = (await replicas(handles, lambda: {"a": "expert-a"}).metrics()).decode()

    assert (unscraped("ingress"), unscraped("expert")) == (before[0] + 1, before[1] + 1)
    assert [line[-1] for line in text.splitlines()] == ["1", "2", "3"]


async def test_an_application_that_is_not_there_is_left_out_and_counted() -> None:
    def handle_for(deployment: str, app: str) -> FakeHandle:
        if app == "expert-a":
            raise ValueError("no such application")
        return FakeHandle()

    made = Replicas(
        lambda: ("app#Ingress#1", b"own 1\n"),
        FakeHandle(),
        lambda: {"a": "expert-a"},
        here=lambda: ("Ingress", "app"),
        handle_for=handle_for,
    )
    before = unscraped("expert")

    assert await made.metrics() == b'own{replica="app#Ingress#1"} 1\n'
    assert unscraped("expert") == before + 1


async def test_many_scrapes_a_second_reach_the_replicas_once() -> None:
    handles = {("Ingress", "app"): FakeHandle(), ("Router", "app"): FakeHandle()}
    clock = Clock()
    made = replicas(handles, clock=clock)
    for _ in range(5):
        await made.metrics()
    assert len(handles["Router", "app"].asked) == 1
    clock.now += 1.0
    await made.metrics()

    assert len(handles["Router", "app"].asked) == 2


async def test_scrapes_that_waited_for_a_slow_gathering_need_no_other() -> None:
    clock = Clock()

    class Slow(FakeHandle):
        async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
            clock.now += timeout_s
            await asyncio.sleep(0)
            return []

    handles = {("Ingress", "app"): FakeHandle(), ("Router", "app"): Slow()}
    made = replicas(handles, clock=clock)
    await asyncio.gather(*(made.metrics() for _ in range(5)))

    assert len(handles["Router", "app"].asked) == 1


@pytest.mark.parametrize(
    ("answers", "known"),
    [
        ((None, "found"), ("found", True)),
        ((None, None), (None, True)),
        ((None, TimeoutError()), (None, False)),
    ],
)
async def test_recall_says_whether_all_responded(answers: tuple[Any, ...], known: tuple[Any, bool]) -> None:
    handles = {("Ingress", "app"): FakeHandle(*answers), ("Router", "app"): FakeHandle()}

    assert await replicas(handles).recall("id") == known
    assert handles["Ingress", "app"].asked == [("recall", "id")]


@pytest.mark.parametrize("hanging", [("Ingress", "app"), ("Expert", "expert-a")])
async def test_a_hanging_lookup_hides_no_other_metrics(
    hanging: tuple[str, str], hang: threading.Event
) -> None:
    def handle_for(deployment: str, app: str) -> FakeHandle:
        if (deployment, app) == hanging:
            hang.wait()
        return FakeHandle()

    made = Replicas(
        lambda: ("app#Ingress#1", b"own 1\n"),
        FakeHandle(("app#Router#1", b"own 3\n")),
        lambda: {"a": "expert-a"},
        here=lambda: ("Ingress", "app"),
        handle_for=handle_for,
        scrape_s=0.5,
    )
    text = (await asyncio.wait_for(made.metrics(), 5)).decode()

    assert [line[-1] for line in text.splitlines()] == ["1", "3"]


async def test_recall_does_not_wait_for_a_hanging_lookup(hang: threading.Event) -> None:
    made = Replicas(
        lambda: ("app#Ingress#1", b"own 1\n"),
        FakeHandle(),
        dict,
        here=lambda: ("Ingress", "app"),
        handle_for=lambda *_: hang.wait(),
        recall_s=0.05,
    )
    known = await asyncio.wait_for(made.recall("id"), 5)

    assert known == (None, False)
