"""Make the policies of this repository with the trainer's own commands, from answers of the served experts.

    python -m cluster.pocket.train_policy [--only default|claims] [--force]

questions → collect (every expert, through the running endpoint) → label → train → evaluate. Nothing
in a policy is written by hand. It is made again only if an expert, the questions or this recipe
have changed.
"""

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cluster.local.readiness import readiness, wait_until_ready
from cluster.local.run import ROOT, serving
from cluster.pocket.chat_model import recipe_of_chat
from cluster.pocket.open_questions import LONG_TEXTS, open_questions
from cluster.pocket.questions import Question, questions, small_sums, write_questions

LOCAL = ROOT / "cluster" / "local"
PORT = 8137
MOST_TOKENS = 16
"""Maximum of all pocket experts' answers, and enough for the chat expert's to a question that they know."""
MOST_TOKENS_OPEN = 24
"""Of an answer to an open question; the chat expert writes about 30 of them a second on two cores."""
CONCURRENCY = 32
"""The chat expert's time is that of its steps: many answers in each."""
METHOD = "auto"
ENCODER = "static"
"""On the pocket experts it decides as well as the transformer (docs/routing.md), for next to nothing."""
PLANS = "none"
"""One expert answers each query: the graphs show routing, and a newcomer sees one decision."""
EXAMPLES = 3
"""Held-out questions of each task that the report shows with their expert."""
DRAWN_SEED = 1
HELD_OUT_SEED = 12


@dataclass(frozen=True, slots=True)
class Recipe:
    """One graph and how its policy is made."""

    config: Path
    experts: tuple[str, ...]
    policy: Path
    pool: Path
    drawn: int
    """Questions of the specialists' kinds, with one right answer, to learn from."""
    held_out: int
    """The same, to evaluate on."""
    small: Mapping[str, int]
    """Sums of one-digit numbers among both, by split."""
    quality: str
    """Label of their answers."""
    with_open: bool
    """Whether the policy learns from open questions too, whose answers are labelled with `bertsim`."""

    @property
    def stamp(self) -> Path:
        """Outside the policy's folder, which holds only files that its manifest lists."""
        return self.policy.with_suffix(".json")

    @property
    def report(self) -> Path:
        """The evaluation on held-out questions, where the page reads it."""
        return self.policy.with_name(self.policy.name + "-report")

    def facts(self) -> dict[str, Any]:
        """Everything but the experts and the questions that changes the result."""
        train: dict[str, Any] = {"split": "policy", "n": self.drawn, "seed": DRAWN_SEED}
        if self.small:
            train["small"] = self.small["policy"]
        facts: dict[str, Any] = {"method": METHOD, "encoder": ENCODER, "seed": 0}
        facts |= {"train": train, "quality": self.quality, "plans": PLANS}
        if self.with_open:
            facts["open"] = {"quality": "bertsim", "max_tokens": MOST_TOKENS_OPEN}
        return facts


_SPECIALISTS = ("arithmetic", "words", "atlas")
DEFAULT = Recipe(
    config=ROOT / "serve_config.yaml",
    experts=(*_SPECIALISTS, "chat"),
    policy=LOCAL / "policy",
    pool=LOCAL / "experts.yaml",
    drawn=310,
    held_out=48,
    small=MappingProxyType({"policy": 20, "heldout": 12}),
    quality="contains",
    with_open=True,
)
CLAIMS = Recipe(
    config=LOCAL / "claims.yaml",
    experts=(*_SPECIALISTS, "generalist"),
    policy=LOCAL / "claims-policy",
    pool=LOCAL / "claims-experts.yaml",
    drawn=1200,
    held_out=240,
    small=MappingProxyType({}),
    quality="exact",
    with_open=False,
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({"default": DEFAULT, "claims": CLAIMS})


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the policies that are not up to date; 1 if a step fails."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.train_policy", description=__doc__)
    parser.add_argument("--only", choices=sorted(RECIPES), help="this policy; default: both")
    parser.add_argument("--force", action="store_true", help="make it even if nothing has changed")
    options = parser.parse_args(arguments)
    for recipe in (RECIPES[options.only],) if options.only else RECIPES.values():
        if not options.force and up_to_date(recipe):
            print(f"{recipe.policy.relative_to(ROOT)} is up to date")
        elif not _make(recipe):
            return 1
    return 0


def _make(recipe: Recipe) -> bool:
    sources = fingerprint(recipe)
    # Answers of a run that was interrupted are used again; those of other experts are in another folder.
    work = ROOT / "var" / recipe.policy.name / _sha256([sources, recipe.facts()])[:12]
    work.mkdir(parents=True, exist_ok=True)
    with serving(recipe.config, port=PORT, log=work / "serve.log") as (url, process):
        if not _experts_ready(url, process):
            print(f"the experts did not start; see {work / 'serve.log'}", file=sys.stderr)
            return False
        for split in ("policy", "heldout"):
            _collect(recipe, url, split, work)
    outcomes = {split: _labelled(recipe, split, work) for split in ("policy", "heldout")}
    policy, report = work / "policy", work / "report"
    shutil.rmtree(policy, ignore_errors=True)
    of = ("--method", METHOD, "--encoder", ENCODER, "--plans", PLANS, "--pool", recipe.pool)
    _run("train", "--outcomes", outcomes["policy"], *of, "--out", policy)
    shown = ("--examples", EXAMPLES)
    _run("evaluate", "--policy", policy, "--outcomes", outcomes["heldout"], "--out", report, *shown)
    _run("verify", policy)
    for made, place in ((policy, recipe.policy), (report, recipe.report)):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(made, place, ignore=shutil.ignore_patterns("*.png"))
    stamp = {"made_from": sources, "recipe": recipe.facts()}
    recipe.stamp.write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
    print(f"made {recipe.policy.relative_to(ROOT)}")
    return True


def _collect(recipe: Recipe, url: str, split: str, work: Path) -> None:
    for kind, (asked, most_tokens) in _asked(recipe, split).items():
        queries = work / f"{split}-{kind}-queries.jsonl"
        write_questions(asked, queries)
        experts = ("--experts", ",".join(recipe.experts), "--concurrency", CONCURRENCY)
        sent = ("--endpoint", f"{url}/v1", "--queries", queries, "--max-tokens", most_tokens)
        _run("collect", *sent, *experts, "--out", _answers(work, split, kind))


def _labelled(recipe: Recipe, split: str, work: Path) -> Path:
    """Label the answers of a split, each kind in its way, and return one file of all outcomes."""
    lines = []
    for kind in _asked(recipe, split):
        labelled = work / f"{split}-{kind}.jsonl"
        quality = "bertsim" if kind == "open" else recipe.quality
        _run("label", "--outcomes", _answers(work, split, kind), "--quality", quality, "--out", labelled)
        lines.append(labelled.read_text(encoding="utf-8"))
    outcomes = work / f"{split}.jsonl"
    outcomes.write_text("".join(lines), encoding="utf-8")
    return outcomes


def _asked(recipe: Recipe, split: str) -> dict[str, tuple[Sequence[Question], int]]:
    """Return the questions of a split with the most tokens of an answer, by how they are labelled."""
    n, seed = (recipe.drawn, DRAWN_SEED) if split == "policy" else (recipe.held_out, HELD_OUT_SEED)
    closed = questions(split, n=n, seed=seed)
    if recipe.small:
        few = small_sums(split, n=recipe.small[split], seed=seed)
        closed = list({question.query: question for question in (*closed, *few)}.values())
    asked: dict[str, tuple[Sequence[Question], int]] = {"closed": (closed, MOST_TOKENS)}
    if recipe.with_open:
        # Long texts exceed the specialists' context: those never answer them.
        fitting = [question for question in open_questions(split) if question.kind != LONG_TEXTS]
        asked["open"] = fitting, MOST_TOKENS_OPEN
    return asked


def _answers(work: Path, split: str, kind: str) -> Path:
    return work / f"{split}-{kind}-answers.jsonl"


def fingerprint(recipe: Recipe) -> dict[str, str]:
    """Return the SHA-256 of everything that the policy is made from."""
    files = [LOCAL / "experts" / name / "model.safetensors" for name in recipe.experts if name != "chat"]
    files.append(recipe.pool)
    hashes = {str(file.relative_to(LOCAL)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    if "chat" in recipe.experts:
        hashes["chat"] = _sha256(recipe_of_chat())
    learned = (question for asked, _ in _asked(recipe, "policy").values() for question in asked)
    return {**hashes, "questions": _sha256([[question.query, question.reference] for question in learned])}


def up_to_date(recipe: Recipe) -> bool:
    """Whether the present policy was made from exactly these sources, by this recipe."""
    if not recipe.stamp.is_file() or not (recipe.policy / "manifest.json").is_file():
        return False
    stamp: object = json.loads(recipe.stamp.read_text(encoding="utf-8"))
    return stamp == {"made_from": fingerprint(recipe), "recipe": recipe.facts()}


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


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
