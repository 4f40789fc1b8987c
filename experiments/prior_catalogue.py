"""Make the catalogue of priors: `python -m experiments.prior_catalogue --data FOLDER`.

Reads recorded outcomes and `prior_inputs/aggregates.csv` (figures of public leaderboards), and writes the
catalogue of `router/priors` with its sources: success rates, means and counts, and no text of a query. The
same inputs give the same bytes; `--check` compares instead of writing.
"""

import argparse
import csv
import hashlib
import io
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from router.data.outcomes import Row, read_rows
from router.priors.catalogue import COLUMNS
from router.priors.families import FAMILIES

HERE = Path(__file__).parent
TARGET = HERE.parent / "router" / "priors" / "data"
AGGREGATES = HERE / "prior_inputs" / "aggregates.csv"
READ = "2026-11-29"
LEADERBOARDS = {
    "livebench": (
        "LiveBench, tables of its site",
        "https://github.com/LiveBench/livebench.github.io/tree/4bf96c8d9dc9b06c17d82dc76a54429975c2b2c2/public",
        "Apache-2.0",
        "40 for each task of a category: its paper (arXiv 2406.19314) gives 40 to 100",
    ),
    "evalplus": (
        "EvalPlus, results of chat models on HumanEval+ and MBPP+",
        "https://github.com/evalplus/evalplus.github.io/blob/87418456d3a8c2bc6265f24ff91d2dd0e7993f4b/results.json",
        "Apache-2.0",
        "164 and 378, the problems of HumanEval+ and of MBPP+ (github.com/evalplus/evalplus)",
    ),
    "zeroeval-tables": (
        "ZeroEval, summaries",
        "https://github.com/yuchenlin/ZeroEval/tree/570c6269a2e4930ee06a17e713fece1ba52cf1dd/result_dirs",
        "Apache-2.0",
        "as the summaries give them",
    ),
    "aider": (
        "Aider, leaderboards of code editing",
        "https://github.com/Aider-AI/aider/tree/5dc9490bb35f9729ef2c95d00a19ccd30c26339c/aider/website/_data",
        "Apache-2.0",
        "the number of test cases of each run",
    ),
}
RECORDED = {
    "mmlupro10": (
        "MMLU-Pro, evaluation outputs",
        "https://github.com/TIGER-AI-Lab/MMLU-Pro/tree/main/eval_results",
        "Apache-2.0",
    ),
    "zeroeval28": (
        "ZeroEval, outputs on GSM8K, MATH level 5 and CRUXEval",
        "https://github.com/WildEval/ZeroEval",
        "Apache-2.0, tasks MIT",
    ),
    "reasoninggym7": (
        "reasoning-gym, outputs on its easy tasks",
        "https://github.com/open-thought/reasoning-gym-eval",
        "Apache-2.0",
    ),
}
COUNTED = "the recorded queries, counted"
LISTED = {"mmlupro10": "2024-10-15", "zeroeval28": "2024-11-15", "reasoninggym7": "2025-06-15"}
"""When a recorded set can have been made at the earliest, by the newest of its models."""
QUANTITATIVE = frozenset({"math", "physics", "chemistry", "engineering"})
KIND_OF_TASK = {"gsm": "mathematics", "math-l5": "mathematics", "crux": "code"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="folder of recorded outcomes (Parquet)")
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    options = parser.parse_args()
    recorded = {name: _first_samples(read_rows(options.data / f"{name}.parquet")) for name in RECORDED}
    made = {
        "catalogue.csv": catalogue(recorded),
        "sources.json": sources(options.data),
    }
    changed = [name for name, text in made.items() if _current(TARGET / name) != text.encode()]
    if options.check:
        print("changed: " + ", ".join(changed) if changed else "all files are as the inputs make them")
        sys.exit(bool(changed))
    for name in changed:
        (TARGET / name).write_text(made[name], encoding="utf-8")
    print(f"{TARGET}: {len(changed)} of {len(made)} files written")


def catalogue(recorded: dict[str, list[Row]]) -> str:
    """The text of `catalogue.csv`."""
    rows = []
    with AGGREGATES.open(encoding="utf-8") as file:
        given = list(csv.DictReader(file))
    ours = {
        row["model"] for rows_of in (_measured(recorded),) for row in rows_of if "zeroeval" in row["source"]
    }
    for row in given:
        twice = row["source"] == "zeroeval-tables" and row["kind"] in {"mathematics", "code"}
        if not (twice and row["model"] in ours):  # the same runs are among the recorded outcomes
            rows.append({**row, "tokens": "", "output_usd": ""})
    rows += _measured(recorded)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: tuple(str(row[name]) for name in COLUMNS[:4])))
    return text.getvalue()


def sources(data: Path) -> str:
    """The text of `sources.json`."""
    made = {}
    for name, (title, address, licence, n) in LEADERBOARDS.items():
        made[name] = _source(title, address, licence, n, AGGREGATES)
    for name, (title, address, licence) in RECORDED.items():
        made[name] = _source(title, address, licence, COUNTED, data / f"{name}.parquet")
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def _source(title: str, address: str, licence: str, n: str, file: Path) -> dict[str, str]:
    return {
        "title": title,
        "address": address,
        "licence": licence,
        "read": READ,
        "n": n,
        "input_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def _first_samples(rows: list[Row]) -> list[Row]:
    return [row for row in rows if not row.get("sample")]


def _measured(recorded: dict[str, list[Row]]) -> list[dict[str, Any]]:
    """Rows of the catalogue from recorded outcomes: one for each model and benchmark."""
    found = []
    for name, rows in recorded.items():
        groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for row in rows:
            groups[row["expert"], *_benchmark(name, row["task"])].append(row)
        prices = dict(_output_prices(rows))
        for (expert, benchmark, kind), inside in groups.items():
            tokens = [row["completion_tokens"] for row in inside if row["completion_tokens"] is not None]
            found.append(
                {
                    "source": name,
                    "benchmark": benchmark,
                    "kind": kind,
                    "model": expert,
                    "quality": round(float(np.mean([row["quality"] for row in inside])), 4),
                    "n": len(inside),
                    "tokens": round(float(np.mean(tokens)), 1) if tokens else "",
                    "listed": LISTED[name],
                    "output_usd": prices.get(expert, ""),
                }
            )
    return found


def _benchmark(name: str, task: str) -> tuple[str, str]:
    """(name, kind) of a recorded task."""
    if name == "mmlupro10":
        kind = "mathematics" if task in QUANTITATIVE else "knowledge"
        return f"mmlu-pro-{kind}", kind
    if name == "zeroeval28":
        return f"zeroeval-{task}", KIND_OF_TASK[task]
    return f"reasoning-gym-{FAMILIES[task]}", FAMILIES[task]


def _output_prices(rows: list[Row]) -> Iterator[tuple[str, float]]:
    """Each expert's price of a million completion tokens, from its costs and tokens."""
    by_expert: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["cost_usd"] is not None and row["completion_tokens"] is not None:
            by_expert[row["expert"]].append(row)
    for expert, inside in by_expert.items():
        tokens = np.array(
            [[row["prompt_tokens"] or 0, row["completion_tokens"]] for row in inside], dtype=float
        )
        price, *_ = np.linalg.lstsq(tokens, np.array([row["cost_usd"] for row in inside]) * 1e6, rcond=None)
        yield expert, round(float(price[1]), 3)


def _current(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


if __name__ == "__main__":
    main()
