"""Expert profiles, and the candidate pool: the order of all score columns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from router.errors import PoolError
from router.validation import AmountUSD, Count, Name, explain


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    input: AmountUSD
    output: AmountUSD

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
                raise PoolError(
                    f"a price must be a finite number of at least 0 US$ per million tokens, "
                    f"found {name}: {value!r}"
                )

    def cost_usd(self, prompt_tokens: float, completion_tokens: float) -> float:
        """US dollars of a request of this size."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class ExpertProfile:
    """The facts of an expert that are known before any query."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Name
    price: Annotated[Price | None, Field(alias="price_per_mtok")] = None
    context_window: Count | None = None
    """Tokens of prompt and answer together; `None` when unknown."""
    capabilities: Annotated[frozenset[str], BeforeValidator(lambda value: value or ())] = frozenset()
    """Such as `tools`, `vision`."""

    def to_json(self) -> dict[str, Any]:
        """The profile as JSON values, as `from_json` reads them."""
        return {
            "name": self.name,
            "price_per_mtok": None
            if self.price is None
            else {"input": self.price.input, "output": self.price.output},
            "context_window": self.context_window,
            "capabilities": sorted(self.capabilities),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ExpertProfile":
        """A profile from JSON or YAML values.

        Raises:
            PoolError: a key is unknown or missing, or a value has the wrong type or range.
        """
        try:
            return TypeAdapter(cls).validate_python(dict(data))
        except ValidationError as error:
            raise PoolError(
                f"expert {data.get('name', 'without a name')!r}: {explain(error)}. An expert has a `name`, "
                "and if known `price_per_mtok: {input, output}`, `context_window`, `capabilities`"
            ) from error


class CandidatePool:
    """The ordered experts that a policy scores.

    Raises:
        PoolError: the pool is empty or holds an expert twice.
    """

    def __init__(self, experts: Sequence[ExpertProfile]) -> None:
        names = [expert.name for expert in experts]
        if not names:
            raise PoolError("a candidate pool needs at least one expert")
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise PoolError(f"a candidate pool holds each expert once, duplicated: {', '.join(repeated)}")
        self._experts = tuple(experts)
        self._columns = {name: column for column, name in enumerate(names)}

    @classmethod
    def of(cls, *names: str) -> "CandidatePool":
        """A pool of experts with names only."""
        return cls([ExpertProfile(name) for name in names])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The experts' names, in column order."""
        return tuple(expert.name for expert in self._experts)

    def column(self, name: str) -> int:
        """The score column of an expert.

        Raises:
            PoolError: the pool lacks it.
        """
        try:
            return self._columns[name]
        except KeyError:
            raise PoolError(f"{name!r} is not in the candidate pool ({', '.join(self.names)})") from None

    def __len__(self) -> int:
        return len(self._experts)

    def __iter__(self) -> Iterator[ExpertProfile]:
        return iter(self._experts)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> ExpertProfile:
        return self._experts[self.column(name)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CandidatePool) and self._experts == other._experts

    def __hash__(self) -> int:
        return hash(self._experts)

    def __repr__(self) -> str:
        return f"CandidatePool({', '.join(self.names)})"
