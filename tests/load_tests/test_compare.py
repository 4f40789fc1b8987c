"""Comparisons: what is started, and how ratios are paired."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from load_tests import compare, peers, plots
from load_tests.processes import NotStarted, responds, running


def summary(ttft_ms: float, rate: float) -> dict[str, object]:
    return {"requests_per_s": rate, "ttft_ms": {"p50": ttft_ms}, "errors": {}}


ROUNDS = {
    "base": [summary(10, 100), summary(40, 25)],
    "ours": [summary(15, 300), summary(50, 75)],
}


def test_ratios_are_taken_within_a_round() -> None:
    assert compare.paired(ROUNDS, "ours", "base", "requests_per_s") == [3.0, 3.0]
    assert compare.added(ROUNDS, "ours", "base", "ttft_ms.p50") == [5.0, 10.0]


def test_what_was_not_measured_gives_no_ratio() -> None:
    assert compare.paired(ROUNDS, "ours", "base", "e2e_ms.p99") == []
    assert compare.spread([]) == "–"


def test_the_page_has_medians_with_their_spread() -> None:
    page = compare.page({"a load": ROUNDS})

    assert "| ours | 187.5 (75.0 to 300.0) |" in page
    assert "3.00 (3.00 to 3.00)" in page
    assert "+7.5 (+5.0 to +10.0)" in page


def test_every_proxy_has_the_same_back_end(tmp_path: Path) -> None:
    field = peers.proxies(18100, tmp_path, tmp_path, routellm=True)

    assert [server.name for server in field.servers] == ["mock", "ours", "litellm", "routellm"]
    assert peers.litellm_config("http://b")["model_list"][0]["litellm_params"]["api_base"] == "http://b/v1"
    experts = peers.simulated_graph("http://b")["applications"][0]["deployments"][0]["user_config"]["experts"]
    assert {expert.get("url") for expert in experts.values()} == {"http://b/v1", None}


def test_every_engine_is_the_same_and_routing_is_on_for_ours(tmp_path: Path) -> None:
    field = peers.engines(18100, tmp_path)
    graph = peers.engine_graph()
    model = graph["applications"][1]["args"]["model"]

    assert any(part.endswith(model) for part in field.servers[0].command)
    assert {subject.name: subject.model for subject in field.subjects} == {
        "vLLM's own server": "words",
        "ours, routed": "auto",
        "ours, expert named": "words",
        "Ray Serve LLM, 0 ms": "words",
        "Ray Serve LLM, 50 ms": "words",
    }
    llm = peers.serve_llm(model, graph["applications"][1]["args"]["engine"], 50)
    assert llm["args"]["llm_configs"][0]["engine_kwargs"] == graph["applications"][1]["args"]["engine"]


def test_only_selected_subjects_are_started(tmp_path: Path) -> None:
    field = compare.selected(peers.proxies(18100, tmp_path, tmp_path, routellm=False), ["litellm", "mock"])

    assert [server.name for server in field.servers] == ["mock", "litellm"]
    assert [subject.name for subject in field.subjects] == ["litellm", "mock, no proxy"]


def test_a_comparison_takes_turns_and_counts(tmp_path: Path) -> None:
    mock = peers.proxies(18990, tmp_path, tmp_path, routellm=False).servers[0]
    subjects = [peers.Subject(name, "http://127.0.0.1:18990", "mock") for name in ("a", "b")]
    kind = compare.Kind("quick", 2, 3, stream=True)

    with running(mock.command, log=tmp_path / "log", ready=responds(mock.ready), within_s=30):
        rounds = compare.measure(subjects, [kind], 2, 0.1)

    assert [len(rounds["quick"][name]) for name in ("a", "b")] == [2, 2]
    assert all(s["errors"] == {} and s["answered"] for name in ("a", "b") for s in rounds["quick"][name])


def test_a_server_that_ends_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo no such model; exit 3"]

    with (
        pytest.raises(NotStarted, match=r"ended with 3; .*\n.*no such model"),
        running(command, log=tmp_path / "log", ready=lambda: False),
    ):
        pytest.fail("it was never ready")


def test_a_comparison_is_drawn(tmp_path: Path) -> None:
    summary = {"requests_per_s": 10.0, "ttft_ms": None, "e2e_ms": {"p99": 5.0}}
    by_subject = {"litellm": [summary, summary], "ours": [summary], "mock, no proxy": [summary]}
    (tmp_path / "compare.json").write_text(json.dumps({"rounds": {"whole": by_subject}}), encoding="utf-8")

    assert plots.main([str(tmp_path / "compare.json"), str(tmp_path / "chart.png")]) == 0
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


def test_drawing_wants_two_names() -> None:
    assert plots.main([]) == 2
