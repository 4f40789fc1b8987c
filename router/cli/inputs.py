"""Inputs that several commands read (outcomes, pool, encoder, recipe), and how they show progress."""

import argparse
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from router.core import FloatArray
from router.data.dataset import Dataset, load_dataset, load_pool
from router.encoders import Encoder, EncoderSpec, load_encoder
from router.errors import EncoderError, InputError
from router.experts import CandidatePool
from router.plans.plan import Plan, load_plans
from router.training.encoder_choice import Encoded

LONGEST_SEED = 18
"""Digits."""


def add_outcomes(command: argparse.ArgumentParser) -> None:
    """The arguments that `outcomes_of` reads."""
    command.add_argument(
        "--outcomes", required=True, type=Path, help="Parquet or JSONL, a row for each (query, expert)"
    )
    command.add_argument("--pool", type=Path, help="experts.yaml: prices, context windows, order")


def add_choice_of_experts(command: argparse.ArgumentParser) -> None:
    """The arguments for the experts and the seed."""
    command.add_argument("--experts", help="only these experts, separated by commas")
    command.add_argument("--seed", type=seed, default=0, help="a whole number from 0")


def seed(text: str) -> int:
    """The type of `--seed`, for argparse: a whole number from 0."""
    if not text.isascii() or not text.isdecimal() or len(text) > LONGEST_SEED:
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0, found {text!r:.40}")
    return int(text)


def count(text: str) -> int:
    """The type of options that are whole numbers from 1, for argparse."""
    if not text.isascii() or not text.isdecimal() or len(text) > LONGEST_SEED or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed, found {text!r:.40}")
    return int(text)


def seconds(text: str) -> float:
    """The type of times, for argparse: a finite number above 0."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"a finite number above 0 is needed, found {text!r:.40}")
    return value


def not_negative(text: str) -> float:
    """The type of amounts, for argparse: a finite number of at least 0."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"a finite number of at least 0 is needed, found {text!r:.40}")
    return value


def share(text: str) -> float:
    """The type of shares, for argparse: a number in [0, 1]."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a number in [0, 1] is needed, found {text!r:.40}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def outcomes_of(options: argparse.Namespace, pool: CandidatePool | None = None) -> Dataset:
    """The data set that a command names; its pool is that of `--pool`, else `pool`, else the rows'."""
    return load_dataset(options.outcomes, pool=load_pool(options.pool) if options.pool else pool)


def names(text: str, what: str) -> list[str]:
    """Names separated by commas.

    Raises:
        InputError: there is none, or one is duplicated.
    """
    values = [name.strip() for name in text.split(",") if name.strip()]
    if not values:
        raise InputError(f"{what} holds no name")
    if len(set(values)) < len(values):
        raise InputError(f"{what} holds a name twice: {text}")
    return values


def encoder_of(name: str | EncoderSpec) -> Encoder:
    """An encoder on all processors, which a command has to itself and a replica has not."""
    return load_encoder(name, threads=os.cpu_count() or 1)


def embed(encoder: Encoder, texts: Sequence[str]) -> FloatArray:
    """Embeddings [n, dimension], cached on disk, with progress."""
    from router.data.embeddings import encode_cached

    with progress(len(texts), "encode") as advance:
        return encode_cached(encoder, texts, progress=advance)


def encoders_of(name: str, texts: Sequence[str]) -> list[Encoded]:
    """The encoders that a name stands for, with their embeddings of the texts.

    `auto` stands for the static encoder and the default transformer, where that is found here; training then
    chooses.
    """
    found: list[Encoded] = []
    for one in ("static", "default") if name == "auto" else (name,):
        try:
            encoder = encoder_of(one)
        except EncoderError as error:
            if not found:
                raise
            show_step(f"only the static encoder is tried: {error}")
            continue
        found.append(Encoded(encoder.spec, embed(encoder, texts)))
    return found


def mapping_of(file: Path | None) -> dict[str, Any]:
    """A mapping from a YAML or JSON file; empty without one.

    Raises:
        InputError: it cannot be read, or holds something else.
    """
    import yaml

    if file is None:
        return {}
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or a number too long
        raise InputError(f"{file} cannot be read as YAML or JSON: {error}") from error
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise InputError(f"{file} must hold an object of parameters, found {type(data).__name__}")
    return dict(data)


def recipes_of(file: Path | None) -> dict[str, dict[str, Any]]:
    """Method → its parameters.

    Raises:
        InputError: as `mapping_of`, or a method's parameters are not an object.
    """
    recipes = mapping_of(file)
    for name, params in recipes.items():
        if params is not None and not isinstance(params, Mapping):
            raise InputError(
                f"{file}: {name} must hold an object of parameters, found {type(params).__name__}"
            )
    return {name: dict(params or {}) for name, params in recipes.items()}


def plans_of(text: str) -> tuple[Plan, ...] | Literal["auto", "none"]:
    """The value of `--plans`: `auto`, `none`, or the plans of a file.

    Raises:
        PlanError: the file cannot be read, or holds something else.
    """
    if text == "auto":
        return "auto"
    return "none" if text == "none" else load_plans(Path(text))


def show_step(line: str) -> None:
    """Print a step of a command to standard error, which keeps standard output for results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal; elsewhere a line for every tenth of the work."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=what, unit="") as bar:
            yield bar.update
        return
    done, shown = 0, 0

    def advance(count: int) -> None:
        nonlocal done, shown
        done += count
        if total and done * 10 // total > shown:
            shown = done * 10 // total
            show_step(f"{what}: {done}/{total}")

    yield advance
