"""Arrivals, workloads, objectives and the command line: what needs no server."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from load_tests import arrivals
from load_tests.__main__ import main
from load_tests.client import Outcome, Target
from load_tests.load import Load
from load_tests.measures import percentile, summarise
from load_tests.report import markdown
from load_tests.slo import SloError, load_slo, parse_slo
from load_tests.workloads import WORKLOADS, Shape, requests

SLO_FILE = Path(__file__).parents[2] / "load_tests" / "slo.yaml"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_seed_gives_the_same_requests(workload: str) -> None:
    first = list(islice(requests(workload, Shape(), 3), 20))

    assert first == list(islice(requests(workload, Shape(), 3), 20))
    assert all(json.loads(request.body)["model"] == "auto" for request in first)


def test_another_seed_gives_other_requests() -> None:
    assert list(islice(requests("mixed", Shape(), 1), 5)) != list(islice(requests("mixed", Shape(), 2), 5))


def test_arrivals_keep_their_rate_and_order() -> None:
    times = list(islice(arrivals.gamma(50.0, burstiness=1.0, seed=0), 5001))

    assert times == sorted(times)
    assert times[-1] == pytest.approx(100.0, rel=0.1)


def test_bursts_come_at_one_instant() -> None:
    times = list(islice(arrivals.bursts(10.0, size=5, seed=0), 15))

    assert len(set(times)) == 3


def test_a_trace_starts_at_zero_and_may_run_faster(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("TIMESTAMP,tokens\n2024-05-10 00:00:01.5,1\n2024-05-10 00:00:05.5,2\n", encoding="utf-8")

    assert arrivals.trace(file, speed=2.0) == [0.0, 2.0]


def test_a_trace_without_times_says_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("when\n1\n", encoding="utf-8")

    with pytest.raises(ValueError, match=r"columns when, expected one of arrived_at_s"):
        arrivals.trace(file)


def test_percentiles_lie_between_neighbours() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert percentile([7.0], 99) == 7.0


def test_failed_requests_count_against_goodput_and_not_in_times() -> None:
    good = Outcome(0.0, ttft_s=0.1, e2e_s=0.3, tokens=3, streamed=True)
    slow = Outcome(0.0, ttft_s=0.9, e2e_s=1.0, tokens=3, streamed=True)
    bad = Outcome(0.0, error="503:no_replica", e2e_s=9.0)

    figures = summarise(Load([good, slow, bad], seconds=2.0), {"ttft_ms": 500})

    assert figures["goodput"]["fraction"] == pytest.approx(1 / 3, abs=1e-6)
    assert figures["errors"] == {"503:no_replica": 1}
    assert figures["e2e_ms"]["max"] == 1000
    assert figures["tpot_ms"]["p50"] == pytest.approx(75)


@pytest.mark.parametrize("profile", ["small", "steady", "burst"])
def test_the_committed_objectives_are_read(profile: str) -> None:
    assert load_slo(SLO_FILE, profile).at_least["success_rate"] > 0.99


def test_a_missed_objective_is_named() -> None:
    slo = parse_slo({"requests_per_s": 5, "e2e_ms": {"p99": 10}}, "here")
    figures = summarise(Load([Outcome(0.0, e2e_s=0.5)], seconds=1.0))

    assert slo.missed(figures) == [
        "requests_per_s is 1.0, the minimum is 5",
        "e2e_ms p99 is 500 ms, the limit is 10 ms",
    ]


@pytest.mark.parametrize("data", [{"ttft": {"p50": 1}}, {"ttft_ms": {"p51": 1}}, {"requests_per_s": "5"}, []])
def test_a_misspelt_objective_is_rejected(data: object) -> None:
    with pytest.raises(SloError, match=r"here.* expected"):
        parse_slo(data, "here")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--url", "ftp://x"], "expected something like http"),
        (["--url", "http://example.org"], "--allow-remote"),
        (["--concurrency", "0"], "--concurrency is 0, expected more than 0"),
        (["--bursts", "4"], "--bursts needs a size"),
        (["--slo", "nowhere.yaml"], "cannot be read"),
        (["--requests", "2000000"], "bounded by"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert expected in capsys.readouterr().err


def test_a_missing_server_is_a_failed_load_with_a_report(tmp_path: Path) -> None:
    arguments = ["--url", "http://127.0.0.1:1", "--requests", "2", "--warm-up", "0", "--out", str(tmp_path)]

    code = main([*arguments, "--slo", str(SLO_FILE)])

    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert code == 1
    assert report["figures"]["errors"] == {"transport:ConnectionRefusedError": 2}
    assert any("success_rate" in line for line in report["missed"])
    assert (tmp_path / "plot.png").stat().st_size > 0
    assert "Objectives missed" in markdown(report)


def test_loopback_is_known_by_name_and_address() -> None:
    assert Target.of("http://localhost:1").is_loopback
    assert not Target.of("http://10.0.0.1").is_loopback
