"""A plan: which experts are called, how sure their answer must be, and which expert is called otherwise.

A value only: knows nothing of recorded outcomes, policies or requests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router.errors import PlanError
from router.validation import Count, Name, Number, explain

MOST_MEMBERS = 2
MOST_SAMPLES = 8
MOST_HOLD_TOKENS = 512
MOST_PLANS = 16
"""Plans of one policy."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan.

    Raises:
        PlanError: members, samples or the threshold do not fit together.
    """

    name: str
    ask: tuple[str, ...]
    """The members, called at once; an accepted answer is the first one's."""
    otherwise: str
    """`else`: the expert whose answer is final where the members' is rejected."""
    at_least: float
    """The probability to be right from which an answer is accepted."""
    samples: int = 1
    """Answers of the one member; above 1 the plan is a vote."""
    hold_tokens: int | None = None
    """Tokens after which a streaming response is judged; `None` for all of it."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.ask) <= MOST_MEMBERS or len(set(self.ask)) < len(self.ask):
            raise PlanError(f"plan {self.name!r}: `ask` holds one or two different experts")
        if self.otherwise in self.ask:
            raise PlanError(f"plan {self.name!r}: `else` must be another expert than those of `ask`")
        if not 1 <= self.samples <= MOST_SAMPLES or (self.samples > 1 and len(self.ask) > 1):
            raise PlanError(
                f"plan {self.name!r}: `samples` is a whole number from 1 to {MOST_SAMPLES}, "
                "above 1 with one expert in `ask`"
            )
        if not 0 <= self.at_least <= 1:
            raise PlanError(f"plan {self.name!r}: `at_least` is a probability in [0, 1]")
        if self.hold_tokens is not None and (
            not 1 <= self.hold_tokens <= MOST_HOLD_TOKENS or len(self.ask) > 1 or self.samples > 1
        ):
            raise PlanError(
                f"plan {self.name!r}: `hold` takes 1 to {MOST_HOLD_TOKENS} tokens of one answer of one expert"
            )

    @property
    def experts(self) -> tuple[str, ...]:
        """All experts that the plan may call, the `else` expert last."""
        return (*self.ask, self.otherwise)

    @property
    def is_vote(self) -> bool:
        """Whether one expert answers several times."""
        return self.samples > 1

    @property
    def most_answers(self) -> int:
        """Answers that the plan may cost, all samples counted."""
        return len(self.ask) * self.samples + 1

    @property
    def evidence_key(self) -> tuple[tuple[str, ...], int, int | None]:
        """What its acceptance is judged on: plans that differ only in threshold and `else` share it."""
        return (self.ask, self.samples, self.hold_tokens)

    def to_json(self) -> dict[str, Any]:
        """The plan as JSON values, as `from_json` reads them."""
        accept: dict[str, Any] = {"at_least": self.at_least}
        if self.hold_tokens is not None:
            accept["hold"] = {"tokens": self.hold_tokens}
        samples = {"samples": self.samples} if self.is_vote else {}
        return {"name": self.name, "ask": list(self.ask), **samples, "accept": accept, "else": self.otherwise}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """A plan from JSON or YAML values.

        Raises:
            PlanError: a key is unknown or missing, or a value has the wrong type or range.
        """
        try:
            form = _PlanForm.model_validate(data)
        except ValidationError as error:
            name = data.get("name") if isinstance(data, Mapping) else None
            raise PlanError(f"plan {name!r}: {explain(error)}") from error
        hold = None if form.accept.hold is None else form.accept.hold.tokens
        return cls(form.name, tuple(form.ask), form.otherwise, form.accept.at_least, form.samples, hold)


@dataclass(frozen=True)
class Calls:
    """What a plan's calls take, beside one complete answer of each member."""

    accepted: float = 1.0
    """Cost where the answer is accepted: a vote's samples together."""
    rejected: float = 1.0
    """Cost where it is rejected: a stream that is judged by its beginning is aborted there."""
    held: float = 1.0
    """Part of the time between the first token and the last in which the answer is held."""


def load_plans(file: Path) -> tuple[Plan, ...]:
    """The plans of a YAML or JSON file, under the key `plans`.

    Raises:
        PlanError: it cannot be read, holds something else, or two plans have one name.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: no UTF-8, or a number too long
        raise PlanError(f"{file} cannot be read as YAML or JSON: {error}") from error
    entries = data.get("plans") if isinstance(data, Mapping) else None
    if not isinstance(entries, list) or not entries:
        raise PlanError(f"{file} must hold a list `plans` of objects with `name`, `ask`, `accept`, `else`")
    try:
        plans = tuple(Plan.from_json(entry) for entry in entries)
        check_plans(plans)
    except PlanError as error:
        raise PlanError(f"{file}: {error}") from error
    return plans


def check_plans(
    plans: Sequence[Plan], experts: Sequence[str] | None = None, *, most: int | None = MOST_PLANS
) -> None:
    """Check that plans fit each other and, where they are given, the experts.

    Raises:
        PlanError: too many, a name twice or an expert's, or a plan names an unknown expert.
    """
    if most is not None and len(plans) > most:
        raise PlanError(f"a policy holds at most {most} plans, found {len(plans)}")
    taken = set(experts or ())
    for plan in plans:
        if plan.name in taken:
            raise PlanError(f"the name {plan.name!r} is taken by another candidate")
        taken.add(plan.name)
        if experts is not None and (unknown := [name for name in plan.experts if name not in experts]):
            raise PlanError(
                f"plan {plan.name!r} names {unknown[0]!r}, which is not in the candidate pool "
                f"({', '.join(experts)})"
            )


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _HoldForm(_Form):
    tokens: Count


class _AcceptForm(_Form):
    at_least: Number
    hold: _HoldForm | None = None


class _PlanForm(_Form):
    name: Name
    ask: list[Name]
    accept: _AcceptForm
    otherwise: Name = Field(alias="else")
    samples: Count = 1
