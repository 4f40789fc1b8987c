"""Make the default policy with the trainer's own commands, from answers of the served pocket experts.

    python -m cluster.pocket.train_policy [--force]

questions → collect (every expert, through the running endpoint) → label → train → evaluate on held-out
questions. Nothing in the policy is written by hand. It is made again only if an expert, the questions or
this recipe have changed.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from cluster.local.readiness import readiness, wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.questions import main as write_questions
from cluster.pocket.questions import questions

LOCAL = ROOT / "cluster" / "local"
EXPERTS = ("arithmetic", "words", "atlas", "generalist")
POLICY = LOCAL / "policy"
REPORT = LOCAL / "policy-report"
"""The evaluation, where the page of the policy reads it."""
STAMP = LOCAL / "policy.json"
"""Outside the policy's folder, which holds only files that its manifest lists."""
PORT = 8137
MOST_TOKENS = 16
"""Maximum of all pocket experts' answers."""
SPLIT, DRAWN, DRAWN_SEED = "policy", 1200, 1
HELD_OUT, HELD_OUT_SEED = 240, 12
METHOD = "auto"
RECIPE = {"method": METHOD, "train": {"split": SPLIT, "n": DRAWN, "seed": DRAWN_SEED}, "seed": 0}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the policy unless it is up to date; 1 if a step fails."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.train_policy", description=__doc__)
    parser.add_argument("--force", action="store_true", help="make it even if nothing has changed")
    options = parser.parse_args(arguments)
    sources = fingerprint()
    if not options.force and up_to_date(sources):
        print(f"{POLICY.relative_to(ROOT)} is up to date")
        return 0
    work = ROOT / "var" / "policy"
    work.mkdir(parents=True, exist_ok=True)
    policy, report = work / "policy", work / "report"
    drawn = {SPLIT: (DRAWN, DRAWN_SEED), "heldout": (HELD_OUT, HELD_OUT_SEED)}
    with serving(ROOT / "serve_config.yaml", port=PORT, log=work / "serve.log") as (url, process):
        if not _experts_ready(url, process):
            print(f"the experts did not start; see {work / 'serve.log'}", file=sys.stderr)
            return 1
        outcomes = {split: _outcomes(url, split, *size, work) for split, size in drawn.items()}
    shutil.rmtree(policy, ignore_errors=True)
    of = ("--method", METHOD, "--pool", LOCAL / "experts.yaml")
    _run("train", "--outcomes", outcomes[SPLIT], *of, "--out", policy)
    _run("evaluate", "--policy", policy, "--outcomes", outcomes["heldout"], "--out", report)
    _run("verify", policy)
    for made, place in ((policy, POLICY), (report, REPORT)):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made, place, ignore=shutil.ignore_patterns("*.png"))
    STAMP.write_text(json.dumps({"made_from": sources, "recipe": RECIPE}, indent=2) + "\n", encoding="utf-8")
    print(f"made {POLICY.relative_to(ROOT)}")
    return 0


def _outcomes(url: str, split: str, n: int, seed: int, work: Path) -> Path:
    """Send questions of a split to every expert, label the answers, and return the outcomes file."""
    queries, answers = work / f"{split}-queries.jsonl", work / f"{split}-answers.jsonl"
    outcomes = work / f"{split}.parquet"
    if write_questions(["--split", split, "--n", str(n), "--seed", str(seed), "--out", str(queries)]):
        raise ValueError(f"there are not {n} questions of split {split}")
    answers.unlink(missing_ok=True)  # it may hold answers of earlier experts
    sent = ("--endpoint", f"{url}/v1", "--queries", queries, "--max-tokens", MOST_TOKENS)
    _run("collect", *sent, "--experts", ",".join(EXPERTS), "--out", answers)
    _run("label", "--outcomes", answers, "--quality", "exact", "--out", outcomes)
    return outcomes


def fingerprint() -> dict[str, str]:
    """Return the SHA-256 of everything that the policy is made from."""
    files = [LOCAL / "experts" / name / "model.safetensors" for name in EXPERTS]
    files.append(LOCAL / "experts.yaml")
    hashes = {str(file.relative_to(LOCAL)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    drawn = questions(SPLIT, n=DRAWN, seed=DRAWN_SEED)
    texts = json.dumps([[question.query, question.reference] for question in drawn])
    return {**hashes, "questions": hashlib.sha256(texts.encode()).hexdigest()}


def up_to_date(sources: dict[str, str]) -> bool:
    """Whether the present policy was made from exactly these sources, by this recipe."""
    if not STAMP.is_file() or not (POLICY / "manifest.json").is_file():
        return False
    stamp: object = json.loads(STAMP.read_text(encoding="utf-8"))
    return stamp == {"made_from": sources, "recipe": RECIPE}


def _experts_ready(url: str, process: "subprocess.Popen[bytes]") -> bool:
    """Wait for the experts only: the router may lack its policy, which this command makes."""

    def alive() -> bool:
        waiting = readiness(url)
        return process.poll() is None and (waiting is None or bool(waiting.keys() - {"router"}))

    wait_until_ready(url, alive, lambda line: print(line, flush=True))
    waiting = readiness(url)
    return waiting is not None and not waiting.keys() - {"router"}


def _run(*command: object) -> None:
    line = [str(part) for part in command]
    print("$ to-router " + " ".join(line), flush=True)
    subprocess.run([str(Path(sys.executable).parent / "to-router"), *line], check=True, cwd=ROOT)


if __name__ == "__main__":
    sys.exit(main())
