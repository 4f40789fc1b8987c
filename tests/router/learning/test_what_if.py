"""What-if on a log: the decisions of a policy are judged by another one's draws, with what was logged."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router.cli import main
from router.core import ExpertLoad, Exploration, FloatArray, Preferences, QueryBatch, RouteRequest
from router.encoders import EncoderSpec
from router.errors import InputError
from router.learning import replay
from router.learning.exploration import draw_for
from router.learning.log import read_folders
from router.learning.logged import LoggedTraffic, reward_in, traffic_of
from router.learning.record import (
    DecisionRecord,
    FeedbackRecord,
    JudgementRecord,
    Record,
    ShadowRecord,
    to_json,
)
from router.learning.what_if import WhatIf, what_if
from router.policy import Policy
from router.training.train import train
from tests.router.data_sets import dataset, embeddings, rows

ENCODER = EncoderSpec("tiny", "0" * 64, 16, 64)
EXPLORATION = Exploration(0.4, 0.2, seed=5)


def embed(encoder: EncoderSpec, texts: Sequence[str]) -> FloatArray:
    return embeddings(tuple(texts))


def no_texts(encoder: EncoderSpec, texts: Sequence[str]) -> FloatArray:
    raise AssertionError("the log holds no texts")


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Policy]:
    """A policy that separates sums from words."""
    data = dataset(120, seed=9)
    policy = train(data, embeddings(data.texts), ENCODER, method="knn")
    folder = tmp_path_factory.mktemp("learned") / "policy"
    policy = replace(policy, preferences=Preferences(cost_weight=0.0))
    return folder, policy.save(folder, "a card")


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Policy]:
    """A policy that always chooses the same expert."""
    data = dataset(120, seed=9)
    policy = train(data, embeddings(data.texts), ENCODER, method="fixed")
    folder = tmp_path_factory.mktemp("static") / "policy"
    return folder, replace(policy, preferences=Preferences(cost_weight=0.0)).save(folder, "a card")


def log_of(policy: Policy, n: int = 1500, *, share: float = 0.4, **fields: Any) -> list[Record]:
    """The log of a policy's traffic with judged responses."""
    made = rows(n, seed=1)
    quality = {(row["query_id"], row["expert"]): row["quality"] for row in made}
    texts = {row["query_id"]: row["query"] for row in made}
    batch = QueryBatch(tuple(texts.values()), embeddings(tuple(texts.values())))
    decisions = policy.decide(batch, [RouteRequest(text) for text in texts.values()])
    records: list[Record] = []
    for number, (query_id, decision) in enumerate(zip(texts, decisions, strict=True)):
        found = draw_for(replace(EXPLORATION, share=share), query_id, decision)
        records.append(
            DecisionRecord(
                request_id=query_id,
                model="auto",
                reason="explored" if found.explored else "routed",
                policy=policy.policy_id,
                expert=found.action,
                action=found.action,
                propensities=found.propensities,
                ranking=decision.ranking,
                outcome="200",
                cost_usd={"large": 1e-5}.get(found.action, 1e-6),
                latency_s=0.5,
                query=fields.get("query", texts[query_id]),
                encoder=ENCODER.sha256[:12],
                embedding=replay.encoded(batch.embeddings[number]) if fields.get("embedding") else None,
            )
        )
        records.append(
            JudgementRecord(request_id=query_id, quality=quality[query_id, found.action], judge="exact")
        )
    return records


def judged(records: list[Record], *policies: tuple[Path, Policy], **options: Any) -> WhatIf:
    traffic = traffic_of(records, reward="judged")
    return what_if(traffic, policies, options.get("embed", embed), reward="judged")


def test_a_learned_policy_is_better_than_the_static_one_in_effect(
    learned: tuple[Path, Policy], static: tuple[Path, Policy]
) -> None:
    found = judged(log_of(static[1]), learned, static)

    better, same = found.policies
    assert (found.n, better.verdict, same.verdict) == (1500, "better", "undecided")
    value = better.estimate.doubly_robust
    assert value is not None
    assert value.low < 0.95 < value.high
    assert better.cost_usd == pytest.approx(1e-6, rel=0.05)
    assert "would have been better" in better.sentence


def test_the_policy_in_effect_needs_no_texts(static: tuple[Path, Policy]) -> None:
    found = judged(log_of(static[1], query=None), static, embed=no_texts)

    assert found.policies[0].verdict == "undecided"


def test_without_texts_and_scores_the_message_says_what_to_log(
    learned: tuple[Path, Policy], static: tuple[Path, Policy]
) -> None:
    with pytest.raises(InputError, match=r"log texts \(`log\.queries: true`"):
        judged(log_of(static[1], query=None), learned, embed=no_texts)


def test_logged_embeddings_replace_texts_where_nothing_else_is_read(
    learned: tuple[Path, Policy], static: tuple[Path, Policy]
) -> None:
    with_texts = judged(log_of(static[1]), learned).policies[0]
    without = judged(log_of(static[1], query=None, embedding=True), learned, embed=no_texts).policies[0]

    assert replay.reads_embeddings_alone(learned[1])
    assert without.verdict == "better"
    assert without.estimate.effective_n == pytest.approx(with_texts.estimate.effective_n, rel=0.02)


def test_shadow_scores_replace_texts(learned: tuple[Path, Policy], static: tuple[Path, Policy]) -> None:
    records = log_of(static[1], query=None)
    texts = {row["query_id"]: row["query"] for row in rows(1500, seed=1)}
    batch = QueryBatch(tuple(texts.values()), embeddings(tuple(texts.values())))
    for query_id, decision in zip(
        texts, learned[1].decide(batch, [RouteRequest(text) for text in batch.texts]), strict=True
    ):
        records.append(
            ShadowRecord(
                request_id=query_id, policy=learned[1].policy_id, ranking=decision.ranking, scores={}
            )
        )

    assert judged(records, learned, embed=no_texts).policies[0].verdict == "better"


def test_a_log_without_exploration_is_not_judged(
    learned: tuple[Path, Policy], static: tuple[Path, Policy]
) -> None:
    one = judged(log_of(static[1], 300, share=0.0), static).policies[0]

    assert one.verdict == "not judged"
    assert one.as_json()["value"] is None
    assert "no exploration" in one.sentence


def test_what_cannot_be_judged_is_left_out_and_counted() -> None:
    good: dict[str, Any] = {
        "model": "auto", "outcome": "200", "expert": "a", "action": "a", "propensities": {"a": 0.5, "b": 0.5},
    }  # fmt: skip
    records: list[Record] = [
        DecisionRecord(request_id="1", **good),
        DecisionRecord(request_id="2", **good),
        DecisionRecord(request_id="3", **{**good, "model": "a", "reason": "named"}),
        DecisionRecord(request_id="4", **{**good, "model": "auto-cheap"}),
        DecisionRecord(request_id="5", **{**good, "propensities": None}),
        DecisionRecord(request_id="6", **{**good, "outcome": "503"}),
        DecisionRecord(request_id="7", **{**good, "propensities": {"a": 0.5}}),
        JudgementRecord(request_id="1", quality=1.0, sampling_rate=0.1),
    ]

    found = traffic_of(records, reward="judged")

    assert [one.record.request_id for one in found.decisions] == ["1"]
    assert found.decisions[0].sampling_rate == 0.1
    assert found.left_out == {
        "without a judgement": 1,
        "with a named expert": 1,
        "with a preset": 1,
        "without probabilities": 1,
        "without a response": 1,
        "with impossible probabilities": 1,
    }


def test_the_last_rating_by_the_same_key_counts() -> None:
    decision = DecisionRecord(
        request_id="1", model="auto", outcome="200", expert="b", action="a", key="k", propensities={"a": 1.0}
    )
    ratings = [
        FeedbackRecord(request_id="1", time="1", quality=0.0, expert="b", key="k"),
        FeedbackRecord(request_id="1", time="2", quality=1.0, expert="b", key="k"),
        FeedbackRecord(request_id="1", time="3", quality=0.5, expert="b", key="other"),
    ]

    (one,) = traffic_of([*ratings, decision], reward="ratings").decisions

    assert (one.quality, one.action) == (1.0, "a")


def test_a_log_without_rewards_says_how_they_come(static: tuple[Path, Policy]) -> None:
    with pytest.raises(InputError, match="no decision with a reward"):
        what_if(LoggedTraffic(()), [static], embed, reward="judged")


def test_a_replay_has_the_load_of_the_log(static: tuple[Path, Policy]) -> None:
    busy = ExpertLoad(wait_s=2.0, cached_tokens=30)
    logged = {**asdict(busy), "of_a_later_version": 1.0}
    record = DecisionRecord(request_id="1", query="q", load={"large": logged})

    assert replay.request_of(static[1], record).load == {"large": busy}
    assert replay.request_of(static[1], DecisionRecord(request_id="1", query="q")).load == {}


def test_decisions_of_a_log_are_no_load_for_each_other(
    static: tuple[Path, Policy], learned: tuple[Path, Policy]
) -> None:
    busy = {name: asdict(ExpertLoad(wait_s=0.1, added_wait_s=1.0)) for name in learned[1].pool.names}
    records = [
        replace(one, load=busy, preferences={"latency_weight": 0.05})
        if isinstance(one, DecisionRecord)
        else one
        for one in log_of(static[1], 60)
    ]
    traffic = traffic_of(records, reward="judged")

    together = replay.choices(learned[1], traffic, embed)

    alone = [replay.choices(learned[1], LoggedTraffic((one,)), embed)[0] for one in traffic.decisions]
    assert together == alone
    assert set(together) == {"sums", "words"}


def test_embeddings_survive_the_log() -> None:
    row = np.random.default_rng(0).normal(size=16).astype(np.float32)
    row /= np.linalg.norm(row)

    found = replay.decoded(replay.encoded(row))

    assert found is not None
    assert found == pytest.approx(row, abs=1e-3)
    assert replay.decoded("not base64") is None
    assert replay.decoded("") is None


def write(folder: Path, records: list[Record]) -> Path:
    folder.mkdir()
    for prefix, kind in (("decisions", DecisionRecord), ("judgements", JudgementRecord)):
        lines = [
            json.dumps(to_json(record, with_texts=True), default=str)
            for record in records
            if isinstance(record, kind)
        ]
        (folder / f"{prefix}-1.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_command_prints_its_figures_as_json(
    static: tuple[Path, Policy], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path / "log", log_of(static[1], query=None))

    code = main(["what-if", "--log", str(log), "--log", str(log), "--policy", str(static[0]), "--json"])

    found = json.loads(capsys.readouterr().out)
    (policy,) = found["policies"]
    assert code == 0
    assert found["n"] == 1500 == len(read_folders([log])) / 2
    assert policy.keys() >= {
        *("policy_id", "folder", "value", "ci95", "cost_usd", "effective_n", "verdict"),
    }
    assert policy["policy_id"] == static[1].policy_id
    assert policy["ci95"][0] < policy["value"] < policy["ci95"][1]


def test_ratings_are_the_reward_where_nothing_is_judged() -> None:
    rating = FeedbackRecord(request_id="1", quality=1.0)

    assert reward_in([DecisionRecord(request_id="1"), rating]) == "ratings"
    assert reward_in([rating, JudgementRecord(request_id="1", quality=1.0)]) == "judged"


def test_the_command_shows_a_table_for_people(
    static: tuple[Path, Policy], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path / "log", log_of(static[1], 200, share=0.0, query=None))

    assert main(["what-if", "--log", str(log), "--policy", str(static[0])]) == 0

    out = capsys.readouterr().out
    assert "| not judged |" in out
    assert "no exploration" in out


def test_policies_that_the_log_cannot_show_are_bad_input(
    learned: tuple[Path, Policy],
    static: tuple[Path, Policy],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = write(tmp_path / "log", log_of(static[1], 50, query=None))

    assert main(["what-if", "--log", str(log), "--policy", str(learned[0])]) == 2
    assert "log.queries: true" in capsys.readouterr().err


def test_records_are_deleted_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write(tmp_path / "log", [DecisionRecord(request_id="1", key="k"), DecisionRecord(request_id="2")])

    assert main(["log", "delete", "--log", str(log), "--key", "k"]) == 0
    assert "1 records deleted" in capsys.readouterr().out
    assert [record.request_id for record in read_folders([log])] == ["2"]
    assert main(["log", "delete", "--log", str(tmp_path / "none"), "--request", "1"]) == 2


def test_a_dry_run_of_learn_shows_its_parts_and_writes_nothing(
    static: tuple[Path, Policy], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, out = write(tmp_path / "log", log_of(static[1], 60)), tmp_path / "out"
    arguments = ["learn", "--log", str(log), "--policy", str(static[0]), "--out", str(out)]

    assert main([*arguments, "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["decisions"], plan["train"], plan["gates_before"], plan["alpha"]) == (60, 36, 0, 0.025)
    assert not out.exists()

    queries = tmp_path / "queries.jsonl"
    known = [record.query for record in log_of(static[1], 60) if isinstance(record, DecisionRecord)][:20]
    queries.write_text("".join(json.dumps({"query": query, "reference": "4"}) + "\n" for query in known))
    assert main([*arguments, "--references", str(queries), "--sample", "0.5", "--dry-run"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["judge"], plan["requests"], plan["with_reference"], plan["rate"]) == (None, 10, 10, 0.5)

    out.mkdir()
    assert main(arguments) == 2
    assert "already exists" in capsys.readouterr().err
