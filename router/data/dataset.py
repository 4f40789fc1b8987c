"""Outcomes as a wide table (queries by experts, NaN where not measured), and its splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import yaml

from router.core import FloatArray, IntArray
from router.data.outcomes import Row, read_outcomes
from router.errors import OutcomesError, PoolError
from router.experts import CandidatePool, ExpertProfile

MEASURED = ("quality", "prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "ttft_s", "nll")


@dataclass(frozen=True)
class Dataset:
    """Outcomes of a candidate pool; every array is [queries, experts] in the pool's order."""

    pool: CandidatePool
    query_ids: tuple[str, ...]
    texts: tuple[str, ...]
    measured: Mapping[str, FloatArray]
    """Column → [n, experts]; only columns that hold something."""
    tasks: tuple[str, ...] | None
    splits: tuple[str, ...] | None

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def quality(self) -> FloatArray:
        return self.measured["quality"]

    @property
    def costs_usd(self) -> FloatArray | None:
        """Measured cost, or tokens at the pool's prices; `None` where neither is known."""
        if "cost_usd" in self.measured:
            return self.measured["cost_usd"]
        tokens = self.measured.get("completion_tokens")
        if tokens is None or any(expert.price is None for expert in self.pool):
            return None
        prompt = self.measured.get("prompt_tokens", np.zeros_like(tokens))
        prices = np.array([[e.price.input, e.price.output] for e in self.pool if e.price is not None])
        costs: FloatArray = (prompt * prices[:, 0] + tokens * prices[:, 1]) / 1e6
        return costs

    @property
    def sha256(self) -> str:
        """Hash of the outcomes, independent of the file's order and format."""
        digest = hashlib.sha256("\n".join(self.pool.names).encode())
        for row in np.argsort(np.array(self.query_ids)):
            digest.update(f"{self.query_ids[row]}\0{self.texts[row]}".encode("utf-8", "replace"))
            digest.update(np.ascontiguousarray(self.quality[row]).tobytes())
        return digest.hexdigest()

    def take(self, rows: IntArray) -> Self:
        """A copy with only these queries, in this order."""
        return type(self)(
            self.pool,
            tuple(self.query_ids[int(i)] for i in rows),
            tuple(self.texts[int(i)] for i in rows),
            {name: values[rows] for name, values in self.measured.items()},
            None if self.tasks is None else tuple(self.tasks[int(i)] for i in rows),
            None if self.splits is None else tuple(self.splits[int(i)] for i in rows),
        )

    def only(self, experts: Sequence[str]) -> Self:
        """The same queries with these experts only, in that order."""
        columns = [self.pool.column(name) for name in experts]
        return type(self)(
            CandidatePool([self.pool[name] for name in experts]),
            self.query_ids,
            self.texts,
            {name: values[:, columns] for name, values in self.measured.items()},
            self.tasks,
            self.splits,
        )

    def complete(self) -> IntArray:
        """Rows in which every expert's quality was measured."""
        return np.flatnonzero(np.isfinite(self.quality).all(axis=1))

    def split_rows(self, name: str) -> IntArray:
        """Rows of a named split.

        Raises:
            OutcomesError: the outcomes carry no such split.
        """
        found = np.flatnonzero(np.array(self.splits or ()) == name)
        if not len(found):
            known = ", ".join(sorted(set(self.splits or ()))) or "none"
            raise OutcomesError(f"there is no split {name!r} in the outcomes; splits: {known}")
        return found


def load_dataset(file: Path, *, pool: CandidatePool | None = None) -> Dataset:
    """Read an outcomes file.

    Raises:
        OutcomesError: as `read_outcomes`.
        PoolError: as `to_dataset`.
    """
    return to_dataset(read_outcomes(file), pool=pool, where=str(file))


def to_dataset(rows: Sequence[Row], *, pool: CandidatePool | None = None, where: str = "outcomes") -> Dataset:
    """Rows of outcomes as a wide table.

    Args:
        rows: checked rows, such as `read_outcomes` returns.
        where: the source of the rows, for errors.
        pool: the experts and their order; by default those of the rows, in order of appearance.

    Raises:
        PoolError: the pool names an expert without any outcome.
    """
    seen = list(dict.fromkeys(row["expert"] for row in rows))
    pool = pool or CandidatePool([ExpertProfile(name) for name in seen])
    if missing := [name for name in pool.names if name not in seen]:
        raise PoolError(f"{where} holds no outcome of {', '.join(missing)}; it holds {', '.join(seen)}")
    index: dict[str, int] = {}
    for row in rows:
        if row["expert"] in pool:
            index.setdefault(row["query_id"], len(index))
    shape = (len(index), len(pool))
    measured = {
        name: np.full(shape, np.nan) for name in MEASURED if any(r.get(name) is not None for r in rows)
    }
    texts, tasks, splits = [""] * len(index), [""] * len(index), [""] * len(index)
    for row in rows:
        if row["expert"] not in pool:
            continue
        at = index[row["query_id"]], pool.column(row["expert"])
        for name, values in measured.items():
            if row.get(name) is not None:
                values[at] = row[name]
        texts[at[0]] = row["query"]
        tasks[at[0]] = row.get("task") or tasks[at[0]]
        splits[at[0]] = row.get("split") or splits[at[0]]
    return Dataset(
        pool,
        tuple(index),
        tuple(texts),
        measured,
        tuple(tasks) if any(tasks) else None,
        tuple(splits) if any(splits) else None,
    )


def load_pool(file: Path) -> CandidatePool:
    """Read a pool file (`experts.yaml`).

    Raises:
        PoolError: not YAML, unknown or missing keys, a bad price.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or a number too long
        raise PoolError(f"{file} cannot be read as YAML: {error}") from error
    entries = data.get("experts") if isinstance(data, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PoolError(f"{file} must hold a list `experts` of objects with `name`")
    try:
        return CandidatePool([ExpertProfile.from_json(entry) for entry in entries])
    except PoolError as error:
        raise PoolError(f"{file}: {error}") from error


def same_query(text: str) -> str:
    """The form in which equal queries are equal: space and case folded."""
    return " ".join(text.split()).casefold()


def clear_of(dataset: Dataset, rows: IntArray, others: IntArray) -> IntArray:
    """The `rows` whose query is in none of `others`."""
    taken = {same_query(dataset.texts[int(row)]) for row in others}
    return rows[[same_query(dataset.texts[int(row)]) not in taken for row in rows]]


def split_by_query(texts: Sequence[str], *, fraction: float, seed: int) -> tuple[IntArray, IntArray]:
    """Rows of the first and of the second part; identical queries are never in both.

    Args:
        texts: the queries.
        fraction: share of the second part, in (0, 1).
        seed: determines the parts.
    """
    order: dict[str, bytes] = {}
    for normal in map(same_query, texts):
        if normal not in order:
            order[normal] = hashlib.blake2b(
                normal.encode("utf-8", "replace"), key=str(seed).encode(), digest_size=8
            ).digest()
    rank = {text: place for place, text in enumerate(sorted(order, key=lambda text: order[text]))}
    bar = len(rank) * fraction
    second = np.array([rank[same_query(text)] < bar for text in texts])
    return np.flatnonzero(~second), np.flatnonzero(second)
