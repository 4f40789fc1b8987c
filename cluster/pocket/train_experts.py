"""`make experts`: train every pocket expert whose recipe or files have changed.

An expert is trained, stored, loaded again and evaluated on held-out questions; its stamp is written last.
An interrupted run resumes. Knows nothing of engines.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.pocket.expert_folder import (
    EXPERTS,
    ExpertFolderError,
    check_total_size,
    is_up_to_date,
    write_model,
    write_stamp,
)
from cluster.pocket.questions import MATERIAL, questions
from cluster.pocket.recipe import RECIPES, Recipe

RUNS = MATERIAL.parent.parent / "var" / "experts"
"""State of unfinished runs; git ignores it."""

JUDGED_ON = 1200  # held-out questions behind each figure of a stamp
JUDGED_SEED = 0
_SAVE_EVERY = 250  # steps
_PLAIN_LINE_EVERY_S = 10.0


def make_experts(
    recipes: Iterable[Recipe], *, experts: Path, runs: Path, force: bool = False, threads: int = 1
) -> list[str]:
    """Train the experts that are not up to date, and return their names.

    Args:
        recipes: the experts.
        experts: parent of their folders.
        runs: parent of the folders of unfinished runs.
        force: train all of them from the start.
        threads: torch's threads; equal threads give equal results.

    Raises:
        ExpertFolderError: the weights of all experts exceed the limit.
    """
    made: list[str] = []
    for recipe in recipes:
        folder, run = experts / recipe.name, runs / recipe.name
        if force:
            shutil.rmtree(run, ignore_errors=True)
        elif is_up_to_date(recipe, folder):
            print(f"{recipe.name}: up to date")
            continue
        _make(recipe, folder=folder, run=run, threads=threads)
        made.append(recipe.name)
    check_total_size(experts)
    return made


def _make(recipe: Recipe, *, folder: Path, run: Path, threads: int) -> None:
    import torch

    from cluster.pocket.generate import accuracy_by_kind, load_expert
    from cluster.pocket.training import train

    torch.set_num_threads(threads)
    with _Progress(recipe) as progress:
        model = train(recipe, run, save_every=_SAVE_EVERY, on_step=progress)
    write_model(model, folder)
    held_out = questions("heldout", n=JUDGED_ON, seed=JUDGED_SEED)
    accuracy = accuracy_by_kind(load_expert(folder), held_out)
    write_stamp(
        recipe,
        folder,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        accuracy=accuracy,
        count=len(held_out),
    )
    shutil.rmtree(run)
    rates = ", ".join(f"{name} {accuracy[name]:.0%}" for name in recipe.tasks)
    print(f"{recipe.name}: made, accuracy on held-out questions: {rates}")


class _Progress:
    """A progress bar on a terminal, else a line every few seconds."""

    def __init__(self, recipe: Recipe) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=recipe.steps, desc=recipe.name, unit="step", disable=not sys.stderr.isatty())
        self._name, self._steps = recipe.name, recipe.steps
        self._line_due_s = time.monotonic()

    def __call__(self, steps_taken: int, loss: float) -> None:
        self._bar.update(steps_taken - self._bar.n)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if self._bar.disable and time.monotonic() >= self._line_due_s:
            print(f"{self._name}: step {steps_taken} of {self._steps}, loss {loss:.3f}", flush=True)
            self._line_due_s = time.monotonic() + _PLAIN_LINE_EVERY_S

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Train the pocket experts that are not up to date."""
    parser = argparse.ArgumentParser(prog="python -m cluster.pocket.train_experts", description=main.__doc__)
    parser.add_argument("--only", nargs="+", choices=sorted(RECIPES), help="these experts instead of all")
    parser.add_argument("--force", action="store_true", help="train them from the start, up to date or not")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch (default 1)")
    parser.add_argument("--experts", type=Path, default=EXPERTS, help="parent of the experts' folders")
    parser.add_argument("--runs", type=Path, default=RUNS, help="parent of the folders of unfinished runs")
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f"--threads is {args.threads}, expected at least 1")
    chosen = [RECIPES[name] for name in args.only or RECIPES]
    try:
        make_experts(chosen, experts=args.experts, runs=args.runs, force=args.force, threads=args.threads)
    except (ExpertFolderError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the next `make experts` resumes here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
