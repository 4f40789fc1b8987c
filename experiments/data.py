"""Common parts of experiments: recorded outcomes, their embeddings, arguments, printing."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from router.core import BoolArray, FloatArray
from router.data.dataset import Dataset, load_dataset
from router.data.embeddings import encode_cached
from router.encoders import EncoderSpec, load_encoder
from router.errors import InputError


@dataclass(frozen=True)
class Recorded:
    """Outcomes and the embeddings of their queries, row by row."""

    dataset: Dataset
    embeddings: FloatArray  # [n, dimension]
    encoder: EncoderSpec

    def without(self, experts: Sequence[str]) -> "Recorded":
        """Return the same queries without some experts."""
        kept = [name for name in self.dataset.pool.names if name not in experts]
        return Recorded(self.dataset.only(kept), self.embeddings, self.encoder)


def arguments(description: str, *, splits: int = 5) -> argparse.ArgumentParser:
    """Return the parser of an experiment: the folder of the outcomes and the number of splits."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, type=Path, help="folder of recorded outcomes (Parquet)")
    parser.add_argument("--splits", type=int, default=splits, help="random splits, seeds 0, 1, …")
    return parser


def outcomes_of(folder: Path, name: str) -> Dataset:
    """Read the outcomes `name`.parquet of a folder.

    Raises:
        InputError: the folder holds no such file.
    """
    file = folder / f"{name}.parquet"
    if not file.is_file():
        raise InputError(f"{folder} holds no {file.name}: give the folder of recorded outcomes with --data")
    return load_dataset(file)


def recorded(folder: Path, name: str, *, encoder_name: str = "default") -> Recorded:
    """Read outcomes, with embeddings by an encoder, cached on disk; raises as `outcomes_of`."""
    dataset = outcomes_of(folder, name)
    encoder = load_encoder(encoder_name, threads=os.cpu_count() or 1)
    return Recorded(dataset, encode_cached(encoder, dataset.texts), encoder.spec)


def hide(dataset: Dataset, seen: BoolArray) -> Dataset:
    """Return the same queries with every measured value hidden but the seen ones, [n, experts]."""
    measured = {name: np.where(seen, values, np.nan) for name, values in dataset.measured.items()}
    return replace(dataset, measured=measured)


def mean_and_spread(values: Sequence[float]) -> str:
    """Format the mean, and the standard deviation of several values."""
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"
