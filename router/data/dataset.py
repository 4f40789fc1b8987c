"""Outcomes as a wide table (queries by experts, NaN where not measured), and its splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import yaml
from numpy.typing import NDArray

from router.core import FloatArray, IntArray
from router.data.outcomes import Row, read_outcomes
from router.errors import OutcomesError, PoolError
from router.experts import CandidatePool, ExpertProfile

ObjectArray = NDArray[np.object_]
WRITTEN = ("response", "finish_reason", "token_logprobs")
"""Columns that replaying a plan reads, as objects."""
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
    written: Mapping[str, ObjectArray] = field(default_factory=dict)
    """Column of `WRITTEN` → [n, experts], `None` where missing; only columns that hold something."""
    samples: tuple["Dataset", ...] = ()
    """The same queries and experts with their second, third, … answers; NaN where there is none."""

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
        return replace(
            self,
            query_ids=tuple(self.query_ids[int(i)] for i in rows),
            texts=tuple(self.texts[int(i)] for i in rows),
            measured={name: values[rows] for name, values in self.measured.items()},
            tasks=None if self.tasks is None else tuple(self.tasks[int(i)] for i in rows),
            splits=None if self.splits is None else tuple(self.splits[int(i)] for i in rows),
            written={name: values[rows] for name, values in self.written.items()},
            samples=tuple(sample.take(rows) for sample in self.samples),
        )

    def only(self, experts: Sequence[str]) -> Self:
        """The same queries with these experts only, in that order."""
        columns = [self.pool.column(name) for name in experts]
        return replace(
            self,
            pool=CandidatePool([self.pool[name] for name in experts]),
            measured={name: values[:, columns] for name, values in self.measured.items()},
            written={name: values[:, columns] for name, values in self.written.items()},
            samples=tuple(sample.only(experts) for sample in self.samples),
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
    texts, tasks, splits = [""] * len(index), [""] * len(index), [""] * len(index)
    by_sample: dict[int, list[Row]] = {}
    for row in rows:
        if row["expert"] in pool:
            at = index[row["query_id"]]
            texts[at] = row["query"]
            tasks[at] = row.get("task") or tasks[at]
            splits[at] = row.get("split") or splits[at]
            by_sample.setdefault(row.get("sample") or 0, []).append(row)
    tables = [
        Dataset(
            pool,
            tuple(index),
            tuple(texts),
            _measured(by_sample[number], index, pool),
            tuple(tasks) if any(tasks) else None,
            tuple(splits) if any(splits) else None,
            _written(by_sample[number], index, pool),
        )
        for number in sorted(by_sample)
    ]
    return replace(tables[0], samples=tuple(tables[1:]))


def _measured(rows: Sequence[Row], index: Mapping[str, int], pool: CandidatePool) -> dict[str, FloatArray]:
    found = {
        name: np.full((len(index), len(pool)), np.nan)
        for name in MEASURED
        if any(row.get(name) is not None for row in rows)
    }
    for row in rows:
        at = index[row["query_id"]], pool.column(row["expert"])
        for name, values in found.items():
            if row.get(name) is not None:
                values[at] = row[name]
    return found


def _written(rows: Sequence[Row], index: Mapping[str, int], pool: CandidatePool) -> dict[str, ObjectArray]:
    found: dict[str, ObjectArray] = {
        name: np.full((len(index), len(pool)), None, dtype=object)
        for name in WRITTEN
        if any(row.get(name) is not None for row in rows)
    }
    for row in rows:
        at = index[row["query_id"]], pool.column(row["expert"])
        for name, values in found.items():
            values[at] = row.get(name)
    return found


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
