"""The decision log: never in a request's way, bounded on disk, and the outcomes that are made of it."""

import argparse
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from deployments.cli.outcomes import add_command, outcomes
from deployments.config import LogSettings
from deployments.observability import decision_log, metrics
from deployments.observability.decision_log import MIB, PARTS, DecisionLog, LogFiles
from router.data.outcomes import read_outcomes
from router.errors import OutcomesError
from router.learning.log import delete_records, log_files, read_records
from router.learning.record import DecisionRecord, FeedbackRecord, Record, from_json
from tests.deployments.fakes import Clock


def settings(folder: Path, **fields: Any) -> LogSettings:
    return LogSettings(folder=str(folder), **fields)


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in log_files(folder) for line in file.read_bytes().splitlines()]


def ids(folder: Path) -> list[str]:
    return [record.request_id for file in log_files(folder) for record in read_records(file)]


def counted(outcome: str) -> float:
    return float(metrics.log_records.labels(outcome)._value.get())


def test_records_are_written_in_order_and_query_text_only_where_configured(tmp_path: Path) -> None:
    for queries in (False, True):
        folder = tmp_path / str(queries)
        log = DecisionLog(settings(folder, queries=queries), "to-router#Ingress#1")
        log.start()
        for number in range(50):
            log.write(DecisionRecord(request_id=str(number), query="a secret"))
        log.write(FeedbackRecord(request_id="0", quality=1.0, comment="my"))
        log.stop()

        *decisions, feedback = kept(folder)
        assert ids(folder) == [*(str(number) for number in range(50)), "0"]
        assert all(("query" in record) == queries for record in decisions)
        assert ("comment" in feedback) == queries
        assert all(file.stat().st_mode & 0o077 == 0 for file in log_files(folder))


def test_a_writer_that_is_stuck_costs_records_never_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = threading.Event()
    monkeypatch.setattr(LogFiles, "append", lambda self, lines: stuck.wait(10))
    log = DecisionLog(settings(tmp_path, max_queued=5), "r")
    log.start()
    before = counted("dropped")
    for number in range(5000):
        log.write(DecisionRecord(request_id=str(number)))

    assert 5000 - 5 - decision_log.MOST_AT_ONCE <= counted("dropped") - before < 5000
    assert log._queue.qsize() <= 5
    stuck.set()
    log.stop()


def test_a_full_disk_loses_records_counts_them_and_leaves_no_half_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = LogFiles(tmp_path, "r", settings(tmp_path))
    files.append(b'{"n": 1}\n')
    write = os.write

    def half(descriptor: int, data: Any) -> int:
        if bytes(data).endswith(b"long}\n") and len(data) == 14:
            return write(descriptor, bytes(data)[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        files.append(b'{"n": 2, long}\n'[-14:])
    monkeypatch.setattr(os, "write", write)
    files.append(b'{"n": 3}\n')
    files.close()

    assert [record["n"] for record in kept(tmp_path)] == [1, 3]


def test_a_folder_that_cannot_be_written_counts_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file stands in the way", encoding="utf-8")
    log = DecisionLog(settings(folder), "r")
    before = counted("failed")
    log.start()
    log.write(DecisionRecord(request_id="1"))
    while counted("failed") == before:
        threading.Event().wait(0.001)
    folder.unlink()
    log.write(DecisionRecord(request_id="2"))
    log.stop()

    assert ids(folder) == ["2"]


def test_a_record_that_cannot_be_written_does_not_end_the_log(tmp_path: Path) -> None:
    log = DecisionLog(settings(tmp_path), "r")
    log.start()
    log.write(DecisionRecord(request_id="1", model="\ud800"))
    log.write(DecisionRecord(request_id="2"))
    log.stop()

    assert [record["type"] for record in kept(tmp_path)] == ["unwritable", "decision"]
    assert ids(tmp_path) == ["2"]


def test_the_folder_never_takes_more_space_than_allowed(tmp_path: Path) -> None:
    clock = Clock()
    files = [LogFiles(tmp_path, name, settings(tmp_path, max_mib=1), clock) for name in ("a", "b")]
    line = b'{"n": "' + b"x" * 5000 + b'"}\n'
    for _ in range(600):
        clock.now += 1
        for file in files:
            file.append(line)

    total = sum(file.stat().st_size for file in log_files(tmp_path))
    assert total <= MIB + 2 * (MIB // PARTS + len(line))
    assert total >= MIB // 2
    assert len(log_files(tmp_path)) <= PARTS + 2


def test_files_older_than_their_days_are_deleted(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 2_000_000_000.0
    old = tmp_path / "decisions-20200101T000000000000-gone.jsonl"
    old.write_bytes(b'{"n": 0}\n')
    os.utime(old, (clock.now - 8 * 86_400, clock.now - 8 * 86_400))
    files = LogFiles(tmp_path, "r", settings(tmp_path, keep_days=7), clock)
    files.append(b'{"n": 1}\n')

    assert kept(tmp_path) == [{"n": 1}]
    assert not old.exists()


def test_a_log_with_little_to_write_forgets_in_time_too(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 2_000_000_000.0
    files = LogFiles(tmp_path, "r", settings(tmp_path, keep_days=16), clock)
    for day in range(40):
        files.append(b'{"day": %d}\n' % day)
        (newest,) = log_files(tmp_path)[-1:]
        os.utime(newest, (clock.now, clock.now))
        clock.now += 86_400

    assert [record["day"] for record in kept(tmp_path)] == list(range(23, 40))


def test_a_file_that_another_replica_deletes_meanwhile_costs_no_record(tmp_path: Path) -> None:
    # It is listed, and gone when it is looked at.
    (tmp_path / "decisions-20200101T000000000000-gone.jsonl").symlink_to(tmp_path / "nowhere")
    files = LogFiles(tmp_path, "r", settings(tmp_path))
    files.append(b'{"n": 1}\n')

    assert files._path is not None
    assert files._path.read_bytes() == b'{"n": 1}\n'


def test_a_silent_replicas_own_file_is_deleted_in_time_too(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 2_000_000_000.0
    files = LogFiles(tmp_path, "r", settings(tmp_path, keep_days=7), clock)
    files.append(b'{"n": 1}\n')
    os.utime(log_files(tmp_path)[0], (clock.now, clock.now))
    clock.now += 8 * 86_400
    files.tidy()
    assert log_files(tmp_path) == []
    files.append(b'{"n": 2}\n')

    assert kept(tmp_path) == [{"n": 2}]


def test_a_file_deleted_by_hand_is_begun_again(tmp_path: Path) -> None:
    clock = Clock()
    files = LogFiles(tmp_path, "r", settings(tmp_path), clock)
    files.append(b'{"n": 1}\n')
    log_files(tmp_path)[0].unlink()
    clock.now += 1
    files.append(b'{"n": 2}\n')

    assert kept(tmp_path) == [{"n": 2}]


def test_records_after_a_deletion_by_request_are_in_the_log(tmp_path: Path) -> None:
    clock = Clock()
    files = LogFiles(tmp_path, "r", settings(tmp_path), clock)
    files.append(b'{"request_id": "1"}\n{"request_id": "2"}\n')
    delete_records(tmp_path, request_id="1")
    clock.now += 1
    files.append(b'{"request_id": "3"}\n')

    assert kept(tmp_path) == [{"request_id": "2"}, {"request_id": "3"}]


def decision(id_: str, query: str | None = "What is 1 + 1?", **fields: Any) -> dict[str, Any]:
    """A decision as a log of an earlier version has it: without a schema version."""
    measured = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "cost_usd": 1e-6,
        "latency_s": 0.5,
        "ttft_s": 0.1,
    }
    record = {
        "type": "decision",
        "request_id": id_,
        "expert": "words",
        "outcome": "200",
        **measured,
        **fields,
    }
    return record if query is None else {**record, "query": query}


def rating(id_: str, quality: float) -> dict[str, Any]:
    return {"type": "feedback", "request_id": id_, "quality": quality}


def read(*records: dict[str, Any]) -> list[Record]:
    return [record for data in records if (record := from_json(data)) is not None]


def test_ratings_become_outcomes_that_the_library_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [
        decision("1"),
        decision("2", completion_tokens=5),
        decision("3", expert="atlas"),
        decision("4", outcome="broken"),
        decision("5", query="Not rated"),
        rating("1", 0.0),
        rating("1", 1.0),
        rating("2", 0.5),
        rating("3", 0.25),
        rating("4", 1.0),
        rating("unknown", 1.0),
    ]
    lines = [json.dumps(record) for record in records] + ['{"torn": ']
    (tmp_path / "decisions-1-r.jsonl").write_text("\n".join(lines), encoding="utf-8")
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    for ending in ("parquet", "jsonl"):
        out = tmp_path / f"outcomes.{ending}"
        options = parser.parse_args(["outcomes", "--log", str(tmp_path), "--out", str(out)])

        assert options.run(options) == 0
        rows = {row["expert"]: row for row in read_outcomes(out)}
        assert {name: row["quality"] for name, row in rows.items()} == {"words": 0.75, "atlas": 0.25}
        assert (rows["words"]["completion_tokens"], rows["words"]["query"]) == (4, "What is 1 + 1?")
        assert "2 outcomes of 2 experts" in capsys.readouterr().out


def test_a_log_that_holds_no_outcomes_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(OutcomesError, match=r"1 answers and 0 ratings .* POST /v1/feedback"):
        outcomes(read(decision("1")))
    with pytest.raises(OutcomesError, match=r"set `log.queries: true`"):
        outcomes(read(decision("1", query=None), rating("1", 1.0)))
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["outcomes", "--log", str(tmp_path), "--out", str(tmp_path / "o.jsonl")])
    with pytest.raises(OutcomesError, match="has no decision log"):
        options.run(options)


def test_a_rating_joins_by_id_key_and_expert_whatever_the_order_of_files() -> None:
    records = [
        {**rating("job-1", 0.5), "key": "a", "expert": "words", "time": "2026-01-01T00:00:03.000+00:00"},
        {**rating("job-1", 1.0), "key": "a", "expert": "words", "time": "2026-01-01T00:00:02.000+00:00"},
        {**rating("job-1", 0.0), "key": "c", "expert": "words", "time": "2026-01-01T00:00:04.000+00:00"},
        decision("job-1", query="of A", key="a", time="2026-01-01T00:00:00.000+00:00"),
        decision("job-1", query="of B", key="b", time="2026-01-01T00:00:01.000+00:00"),
        decision("job-1", query="of another expert", key="a", expert="atlas"),
    ]

    assert [(row["query"], row["quality"]) for row in outcomes(read(*records))] == [("of A", 0.5)]


@pytest.mark.parametrize(
    "damaged",
    [
        {**decision("1"), "request_id": None},
        {**decision("1"), "request_id": ["1"]},
        {**decision("1"), "completion_tokens": -5},
        {**decision("1"), "latency_s": "soon"},
        {**decision("1"), "query": 7},
        {**decision("1"), "attempts": [{"expert": "words"}]},
        {"type": "feedback", "request_id": "1"},
        rating("1", 5),
        {**rating("1", 1.0), "quality": None},
        {**rating("1", 1.0), "expert": {}},
        {"type": "unwritable", "why": "x"},
        [],
    ],
)
def test_damaged_records_are_skipped_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damaged: Any
) -> None:
    lines = [damaged, decision("2"), rating("2", 1.0)]
    (tmp_path / "decisions-1-r.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    parser = argparse.ArgumentParser()
    add_command(parser.add_subparsers())
    options = parser.parse_args(["outcomes", "--log", str(tmp_path), "--out", str(tmp_path / "o.jsonl")])

    assert options.run(options) == 0
    assert "1 lines of the log are no valid records" in capsys.readouterr().err
    assert len(read_outcomes(tmp_path / "o.jsonl")) == 1


def test_many_ratings_displace_no_decision(tmp_path: Path) -> None:
    log = DecisionLog(settings(tmp_path, max_mib=1, max_queued=100_000), "r")
    log.start()
    for number in range(100):
        log.write(DecisionRecord(request_id=str(number), query="x" * 1000))
    for _ in range(20_000):
        log.write(FeedbackRecord(request_id="1", quality=1.0, expert="words"))
    log.stop(30.0)

    assert ids(tmp_path)[:100] == [str(number) for number in range(100)]
    assert sum(file.stat().st_size for file in log_files(tmp_path)) <= MIB
