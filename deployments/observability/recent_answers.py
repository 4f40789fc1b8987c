"""Origin of each recent response (expert, key, plan), for ratings that come later.

A replica that starts reads from the decision log which responses came before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deployments.limits.keys import NO_KEY
from router.core import Arm
from router.learning.log import PREFIX, read_records
from router.learning.record import DecisionRecord

REMEMBERED = 100_000
"""Responses that a replica still accepts a rating for: 3.2 MB."""
NO_PLAN = ""
MOST_RESTORED_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class AnswerOrigin:
    """The expert that responded to a request, the key that the request came with, and the plan."""

    expert: str
    key: str
    plan: str | None = None
    """The plan that accepted the response; `None` where none did."""
    p_right: float | None = None
    """The probability to be right that the plan accepted it by."""
    arm: Arm | None = None
    """The arm of the canary that ran; `None` while none did."""
    score: float | None = None
    """Its predicted quality; `None` where no policy scored it."""


class RecentAnswers:
    """The latest responses of one ingress replica; the oldest is forgotten first.

    A ring of numbers, 32 bytes for each response: a dict of as many took 20 MB of an ingress, and an
    ordered one of a fifth of them still takes 3 MB. Ids are kept as their hashes, 64 bits with this
    process' own seed: no client can make two ids collide. A look-up reads the whole ring; ratings are
    rare enough for it.
    """

    def __init__(self, most: int = REMEMBERED) -> None:
        self._ids = np.zeros(most, dtype=np.int64)
        self._keys = np.zeros(most, dtype=np.int32)
        self._experts = np.zeros(most, dtype=np.int32)
        self._plans = np.zeros(most, dtype=np.int32)
        self._p_right = np.zeros(most, dtype=np.float32)
        self._scores = np.zeros(most, dtype=np.float32)
        self._arms = np.zeros(most, dtype=np.int32)
        self._known_arms: dict[Arm | None, int] = {None: 0}
        """Arm → its number, in the order of the numbers."""
        self._names: dict[str, int] = {}
        """Key, expert or plan → its number, in the order of the numbers."""
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, len(self._ids))

    def remember(self, request_id: str, origin: AnswerOrigin) -> None:
        """Note the origin of the response to a request."""
        self._put(hash(request_id), origin)

    def recall(self, request_id: str) -> AnswerOrigin | None:
        """The origin of the latest response under an id; `None` where none is known here."""
        matches = np.flatnonzero(self._ids[: len(self)] == hash(request_id))
        if not len(matches):
            return None
        newest = matches[((matches - self._written) % len(self._ids)).argmax()]
        return self._at(newest)[1]

    def restore(self, records: Sequence[tuple[str, AnswerOrigin]]) -> None:
        """Take over earlier responses, oldest first; those known here already stay and count as newer."""
        known = [
            self._at(written % len(self._ids)) for written in range(self._written - len(self), self._written)
        ]
        self._written = 0
        for id_, origin in records:
            self.remember(id_, origin)
        for hashed, origin in known:
            self._put(hashed, origin)

    def _put(self, hashed: int, origin: AnswerOrigin) -> None:
        at = self._written % len(self._ids)
        self._ids[at] = hashed
        self._keys[at] = self._names.setdefault(origin.key, len(self._names))
        self._experts[at] = self._names.setdefault(origin.expert, len(self._names))
        self._plans[at] = self._names.setdefault(origin.plan or NO_PLAN, len(self._names))
        self._p_right[at] = np.nan if origin.p_right is None else origin.p_right
        self._scores[at] = np.nan if origin.score is None else origin.score
        self._arms[at] = self._known_arms.setdefault(origin.arm, len(self._known_arms))
        self._written += 1

    def _at(self, index: int) -> tuple[int, AnswerOrigin]:
        names = list(self._names)
        plan, p_right = names[self._plans[index]], _known(self._p_right[index])
        origin = AnswerOrigin(
            names[self._experts[index]],
            names[self._keys[index]],
            None if plan == NO_PLAN else plan,
            p_right,
            list(self._known_arms)[self._arms[index]],
            _known(self._scores[index]),
        )
        return int(self._ids[index]), origin


def _known(number: np.float32) -> float | None:
    return None if np.isnan(number) else float(number)


def origins_in_log(files: Sequence[Path]) -> list[tuple[str, AnswerOrigin]]:
    """Request id and origin of the responses in a log's newest files, oldest first.

    Files are read up to `MOST_RESTORED_BYTES`.

    Raises:
        OSError: a file cannot be read.
        NewerRecordError: a later version wrote a record.
    """
    newest: list[Path] = []
    size = 0
    for file in reversed([file for file in files if file.name.startswith(PREFIX)]):
        size += file.stat().st_size
        if size > MOST_RESTORED_BYTES and newest:
            break
        newest.insert(0, file)
    return [
        (record.request_id, _origin(record, record.expert))
        for file in newest
        for record in read_records(file)
        if isinstance(record, DecisionRecord) and record.expert
    ]


def _origin(record: DecisionRecord, expert: str) -> AnswerOrigin:
    plan = record.plan if record.plan is not None and record.plan.accepted else None
    name, p_right = (None, None) if plan is None else (plan.name, plan.p_right)
    score = None if record.scores is None else record.scores.get(name or expert)
    return AnswerOrigin(expert, record.key or NO_KEY, name, p_right, _arm(record), score)


def _arm(record: DecisionRecord) -> Arm | None:
    if record.canary is None or record.arm is None:
        return None
    return Arm(record.canary, "canary" if record.arm == "canary" else "control")
