"""The command line: a training run from start to finish, and one clear line for every bad input."""

import argparse
import io
import json
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from router import cli
from router.cli import main
from router.data.outcomes import read_rows, write_rows
from tests.router.data_sets import rows

POOL_FILE = """\
experts:
  - {name: sums, price_per_mtok: {input: 0.05, output: 0.1}, context_window: 512}
  - {name: words, price_per_mtok: {input: 0.05, output: 0.1}, context_window: 512}
  - {name: large, price_per_mtok: {input: 0.5, output: 1.0}, context_window: 512}
"""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outcomes with splits, a pool file, and a policy trained from them."""
    place = tmp_path_factory.mktemp("cli")
    made = [row | {"split": "test" if int(row["query_id"][1:]) % 3 == 0 else "train"} for row in rows(150)]
    write_rows(place / "outcomes.parquet", made)
    (place / "experts.yaml").write_text(POOL_FILE)
    (place / "text.yaml").write_text("knn: five\n")
    (place / "kind.yaml").write_text("k: 5.5\n")
    (place / "long.yaml").write_text(f"k: {'9' * 5000}\n")
    (place / "one.jsonl").write_text('{"query": "q"}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TO_ROUTER_CACHE", str(place / "cache"))
        outcomes, pool = str(place / "outcomes.parquet"), str(place / "experts.yaml")
        code = main(
            [
                "train",
                "--outcomes",
                outcomes,
                "--pool",
                pool,
                "--method",
                "knn",
                "--out",
                str(place / "policy"),
            ]
        )
    assert code == 0
    return place


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("TO_ROUTER_CACHE", str(place / "cache"))
    monkeypatch.chdir(place)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as usage:
            code = int(usage.code or 0)
        told = capsys.readouterr()
        return code, told.out, told.err

    return call


def test_training_takes_the_split_named_train(place: Path) -> None:
    manifest = json.loads((place / "policy" / "manifest.json").read_text())

    assert 90 < manifest["training"]["n_queries"] <= 100
    assert manifest["router"]["name"] == "knn"
    assert manifest["encoder"]["id"] == "to-router/static-minilm-l6-v2"
    assert [expert["name"] for expert in manifest["pool"]] == ["sums", "words", "large"]
    assert manifest.keys() >= {
        *("format", "schema_version", "router", "encoder", "pool", "cost_model", "calibration"),
        *("static_ranking", "data_sha256", "seed", "metrics", "files"),
    }


def test_evaluate_writes_the_report_of_one_split(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "evaluate", "--policy", "policy", "--outcomes", "outcomes.parquet", "--split", "test",
        "--pool", "experts.yaml", "--out", tmp_path / "r", "--json",
    )  # fmt: skip
    figures = json.loads(out)

    assert code == 0
    assert figures["n_queries"] == 50
    assert figures == json.loads((tmp_path / "r" / "report.json").read_text())
    assert figures["policy"]["quality"] > figures["best_single"]["quality"]
    assert {"report.md", "curve.png"} <= {file.name for file in (tmp_path / "r").iterdir()}


def test_compare_puts_methods_and_baselines_into_one_table(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "compare", "--outcomes", "outcomes.parquet", "--pool", "experts.yaml",
        "--methods", "fixed,knn", "--out", tmp_path / "c",
    )  # fmt: skip

    assert code == 0
    for name in ("| random |", "| best single |", "| oracle |", "| zero router |", "| **knn** |"):
        assert name in out
    assert (tmp_path / "c" / "comparison.png").is_file()


@pytest.mark.parametrize(("split", "n_test"), [(None, 30), ("train", 30), ("test", 15)])
def test_compare_leaves_the_queries_of_other_splits_out(
    run: Run, tmp_path: Path, split: str | None, n_test: int
) -> None:
    code, out, err = run(
        "compare", "--outcomes", "outcomes.parquet", "--methods", "fixed", "--out", tmp_path / "c",
        "--json", *(() if split is None else ("--split", split)),
    )  # fmt: skip

    assert code == 0
    assert json.loads(out)["n_test"] == n_test
    assert f"split '{split or 'train'}': " in err


def test_route_answers_as_the_endpoint_does(run: Run) -> None:
    code, out, _ = run("route", "--policy", "policy", "--json", "What is 8 plus 31?")
    answer = json.loads(out)

    assert code == 0
    assert answer["expert"] == answer["ranking"][0] == "sums"
    assert answer.keys() >= {"expert", "ranking", "policy", "reason", "experts"}
    assert answer["experts"]["large"].keys() == {
        "score",
        "cost_usd",
        "ttft_ms",
        "eligible",
        "excluded_because",
        "utility",
        "reason",
    }


def test_route_in_words_takes_preferences_and_exclusions(run: Run) -> None:
    _, out, _ = run(
        "route", "--policy", "policy", "--cost-weight", "0", "--exclude", "sums", "What is 8 plus 31?"
    )

    assert out.splitlines()[0] == "large"
    assert "sums: excluded: named in --exclude" in out
    code, _, err = run("route", "--policy", "policy", "--max-cost-usd", "0", "hello")
    assert code == 2
    assert "no expert is left" in err


def test_inspect_and_verify_print_the_id(run: Run) -> None:
    _, out, _ = run("verify", "policy", "--json")
    told = json.loads(out)
    _, out, _ = run("inspect", "policy", "--json")

    assert json.loads(out)["policy_id"] == told["policy_id"]
    assert told["experts"] == ["sums", "words", "large"]
    assert told["policy_id"] in run("inspect", "policy")[1]
    assert "is sound" in run("verify", "policy")[1]


def test_a_new_expert_is_added_from_probes(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "probes", "--queries", "outcomes.parquet", "--count", 40, "--out", tmp_path / "p.jsonl"
    )
    chosen = {row["query_id"] for row in read_rows(tmp_path / "p.jsonl")}
    made = [
        row | {"expert": "new"} for row in rows(150) if row["expert"] == "words" and row["query_id"] in chosen
    ]
    write_rows(tmp_path / "probes.jsonl", made)
    added, told, _ = run(
        "add-expert", "--policy", "policy", "--outcomes", tmp_path / "probes.jsonl",
        "--expert", "new", "--out", tmp_path / "grown", "--json",
    )  # fmt: skip

    assert (code, added) == (0, 0)
    assert "40 probes of 150 queries" in out
    assert json.loads(told)["experts"] == ["sums", "words", "large", "new"]
    assert run("verify", tmp_path / "grown")[0] == 0
    assert "new was added to policy" in (tmp_path / "grown" / "CARD.md").read_text()


def test_label_judges_what_was_collected(run: Run, tmp_path: Path) -> None:
    collected = [
        {"query_id": "a", "query": "q", "expert": "x", "response": "The answer is 42.", "reference": "42"},
        {"query_id": "b", "query": "q2", "expert": "x", "response": "41", "reference": "42"},
    ]
    write_rows(tmp_path / "r.jsonl", collected)
    code, out, _ = run(
        "label", "--outcomes", tmp_path / "r.jsonl", "--quality", "numeric", "--out", tmp_path / "o.parquet"
    )

    assert code == 0
    assert "2 outcomes, mean quality 0.5000" in out
    assert [row["quality"] for row in read_rows(tmp_path / "o.parquet")] == [1.0, 0.0]


class JudgingHandler(BaseHTTPRequestHandler):
    """Grades what holds 2 + 2, and talks about everything else."""

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        said = "[[5]]" if b"2 + 2" in asked else "Hm."
        body = json.dumps({"choices": [{"message": {"content": said}}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Tests are quiet."""


def test_rows_that_the_judge_cannot_grade_are_left_out_and_the_others_written(
    run: Run, tmp_path: Path
) -> None:
    asked = [{"query_id": q, "query": q, "expert": "x", "response": "4"} for q in ("2 + 2", "3 + 3")]
    write_rows(tmp_path / "r.jsonl", asked)
    with HTTPServer(("127.0.0.1", 0), JudgingHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        (tmp_path / "judge.yaml").write_text(f"endpoint: {url}\nmodel: j\n")
        code, out, err = run(
            "label", "--outcomes", tmp_path / "r.jsonl", "--quality", "judge",
            "--options", tmp_path / "judge.yaml", "--out", tmp_path / "o.jsonl",
        )  # fmt: skip
        server.shutdown()

    assert code == 1
    assert "1 outcomes, mean quality 0.5000" in out
    assert "1 rows got no label; run again to retry them. First: row 2: " in err
    assert [row["query"] for row in read_rows(tmp_path / "o.jsonl")] == ["2 + 2"]
    assert len((tmp_path / "o.jsonl.judge.jsonl").read_text().splitlines()) == 1


def test_a_recipe_holds_the_methods_parameters(run: Run, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("k: 5\n")
    code, _, _ = run(
        "train", "--outcomes", "outcomes.parquet", "--method", "knn", "--recipe", tmp_path / "recipe.yaml",
        "--out", tmp_path / "p",
    )  # fmt: skip

    assert code == 0
    assert json.loads((tmp_path / "p" / "manifest.json").read_text())["router"]["params"]["k"] == 5


TRAIN = ("train", "--outcomes", "outcomes.parquet", "--method", "knn", "--out", "new")
JUDGE = ("evaluate", "--policy", "policy", "--outcomes", "outcomes.parquet", "--out", "new")
BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "no outcomes": (("train", "--outcomes", "nothing.parquet", "--out", "new"), "no such file"),
    "out exists": ((*TRAIN[:-1], "policy"), "already exists"),
    "method": (("train", "--outcomes", "outcomes.parquet", "--method", "x", "--out", "new"), "is unknown"),
    "recipe": ((*TRAIN, "--recipe", "experts.yaml"), "found 'experts'"),
    "no recipe": ((*TRAIN, "--recipe", "none.yaml"), "cannot be read"),
    "pool": ((*TRAIN, "--pool", "outcomes.parquet"), "cannot be read as YAML"),
    "one expert": ((*TRAIN, "--experts", "words"), "at least two experts"),
    "stranger": ((*TRAIN, "--experts", "words,me"), "'me' is not in the candidate pool"),
    "twice": ((*TRAIN, "--experts", "words,words"), "holds a name twice"),
    "no experts": ((*TRAIN, "--experts", ","), "holds no name"),
    "train split": ((*TRAIN, "--split", "dev"), "no split 'dev'"),
    "encoder": ((*TRAIN, "--encoder", "experts.yaml"), "encoder 'experts.yaml'"),
    "split": ((*JUDGE, "--split", "dev"), "no split 'dev'"),
    "no policy": (("inspect", "nowhere"), "there is no such folder"),
    "not a policy": (("verify", "cache"), "holds no manifest.json"),
    "label": (
        ("label", "--outcomes", "outcomes.parquet", "--quality", "exact", "--out", "new"),
        "row 1: response must be a text, found nothing",
    ),
    "labeler": (
        ("label", "--outcomes", "outcomes.parquet", "--quality", "taste", "--out", "new"),
        "'taste' is unknown",
    ),
    "preference": (
        ("route", "--policy", "policy", "--min-quality", "7", "x"),
        "--min-quality: a number in [0, 1] is needed, found '7'",
    ),
    "excluded": (("route", "--policy", "policy", "--exclude", "me", "x"), "'me' is not in the"),
    "splits": (
        ("compare", "--outcomes", "outcomes.parquet", "--methods", "knn", "--splits", "0", "--out", "new"),
        "--splits: a whole number from 1 is needed, found '0'",
    ),
    "probe count": (
        ("probes", "--queries", "outcomes.parquet", "--count", "0", "--out", "new"),
        "--count: a whole number from 1 is needed, found '0'",
    ),
    "recipes": (
        ("compare", "--outcomes", "outcomes.parquet", "--methods", "knn", "--recipes", "text.yaml",
         "--out", "new"),
        "knn must hold an object of parameters, found str",
    ),
    "kind": ((*TRAIN, "--recipe", "kind.yaml"), "'knn': k: Input should be a valid integer, found 5.5"),
    "long number": ((*TRAIN, "--recipe", "long.yaml"), "cannot be read as YAML or JSON"),
    "url": (
        ("collect", "--endpoint", "http://host:port", "--queries", "one.jsonl", "--experts", "a",
         "--out", "new"),
        "endpoint 'http://host:port' is no URL",
    ),
    "no endpoint": (
        ("collect", "--endpoint", "http://127.0.0.1:9/v1", "--queries", "outcomes.parquet", "--experts", "a",
         "--out", "new"),
        "is duplicated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_line_exit_2_and_nothing_written(run: Run, place: Path, case: str) -> None:
    arguments, told = BAD[case]
    before = sorted(place.iterdir())
    code, _, err = run(*arguments)
    lines = [line for line in err.splitlines() if not line.startswith(("encode:", "split "))]

    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"to-router {arguments[0]}: ")
    assert told in lines[0]
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("command", [("train",), ("compare", "--methods", "knn")])
def test_too_few_queries_are_reported_before_the_encoding(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    write_rows(tmp_path / "few.jsonl", rows(25)[: 3 * 19])
    method = ("--method", "knn") if command == ("train",) else ()
    code, _, err = run(*command, *method, "--outcomes", tmp_path / "few.jsonl", "--out", tmp_path / "o")

    assert code == 2
    assert "at least 20 different queries" in err
    assert "encode:" not in err


def test_a_missing_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run("train", "--outcomes", "outcomes.parquet", "--method", "mlp", "--out", "new")

    assert code == 2
    assert "this needs torch: install to-router[train]" in err


@pytest.mark.parametrize("command", [TRAIN, ("probes", "--queries", "outcomes.parquet", "--out", "new")])
def test_a_seed_below_0_is_wrong_usage(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*command, "--seed", "-1"])

    assert caught.value.code == 2
    assert "a seed is a whole number from 0, found '-1'" in capsys.readouterr().err


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train"])

    assert caught.value.code == 2
    assert "--outcomes" in capsys.readouterr().err


def numeric_options() -> list[tuple[str, argparse.Action]]:
    """Every option with a type of its own, of every command that is registered."""
    left, found = [cli.parser()], []
    while left:
        command = left.pop()
        for action in command._actions:
            if isinstance(action, argparse._SubParsersAction):
                left += action.choices.values()
            elif action.type not in {None, str, Path}:
                found.append((f"{command.prog} {action.option_strings[0]}", action))
    return found


def test_every_numeric_option_rejects_what_is_no_amount() -> None:
    rejected = []
    for name, action in numeric_options():
        if " keys " in name:  # the model of a key's limits checks these
            continue
        for text in ("nan", "inf", "-inf", "-1", "x", "", "1e999"):
            with suppress(argparse.ArgumentTypeError):
                action.type(text)  # type: ignore[operator, misc]
                rejected.append(f"{name} accepts {text!r}")

    assert rejected == []


def test_bytes_that_are_not_utf8_are_a_query(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9 \xff\xfe"), encoding="utf-8"))

    assert run("route", "--policy", "policy", "-")[0] == 0
    assert run("route", "--policy", "policy", "caf\udce9")[0] == 0


def test_errors_and_cards_cannot_control_the_terminal(run: Run, place: Path, tmp_path: Path) -> None:
    code, _, err = run("train", "--outcomes", "a\x1b[31m\u202eb", "--out", "new")

    assert code == 2
    assert "a[31mb: no such file" in err
    assert run("train", "--no-such\x1b[31m")[2].count("\x1b") == 0
