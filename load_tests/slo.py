"""Read `slo.yaml` and say which figures of a report missed it.

Pure but for reading the file. Unknown names are errors: a misspelt limit would always be kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SPREADS = ("ttft_ms", "tpot_ms", "gap_ms", "e2e_ms")
POINTS = ("mean", "p50", "p90", "p95", "p99", "max")
AT_LEAST = ("success_rate", "requests_per_s", "output_tokens_per_s")
GOODPUT = ("ttft_ms", "tpot_ms", "e2e_ms", "fraction")


class SloError(ValueError):
    """The file is no service level objective."""


@dataclass(frozen=True, slots=True)
class Slo:
    """What a load must keep to."""

    at_most: dict[tuple[str, str], float] = field(default_factory=dict)
    """(spread, point) → milliseconds."""
    at_least: dict[str, float] = field(default_factory=dict)
    goodput: dict[str, float] | None = None
    """Limits in milliseconds of one request."""
    goodput_fraction: float | None = None
    """Fraction of the requests that must keep all of them."""

    def missed(self, summary: dict[str, Any]) -> list[str]:
        """One line for each objective that `summary` does not meet; empty when all are met."""
        lines = []
        for name, least in self.at_least.items():
            found = summary[name]
            if found is None or found < least:
                lines.append(f"{name} is {found}, at least {least:g} is wanted")
        for (name, point), most in self.at_most.items():
            measured = summary[name]
            if measured is None:
                lines.append(f"{name} {point} was not measured, at most {most:g} ms is wanted")
            elif measured[point] > most:
                lines.append(f"{name} {point} is {measured[point]:g} ms, at most {most:g} ms is wanted")
        if self.goodput_fraction is not None:
            fraction = summary["goodput"]["fraction"]
            if fraction is None or fraction < self.goodput_fraction:
                lines.append(f"goodput fraction is {fraction}, at least {self.goodput_fraction:g} is wanted")
        return lines


def load_slo(file: Path, profile: str) -> Slo:
    """The objectives of one profile.

    Raises:
        SloError: the file cannot be read, has no such profile, or names what is not measured.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SloError(f"{file} cannot be read: {error}") from error
    if not isinstance(data, dict) or profile not in data:
        known = ", ".join(data) if isinstance(data, dict) else "none"
        raise SloError(f"{file} has no profile {profile!r}, only: {known}")
    return parse_slo(data[profile], f"{file}: {profile}")


def parse_slo(data: Any, where: str) -> Slo:
    """One profile's mapping.

    Raises:
        SloError: a name is unknown or a value is no number.
    """
    if not isinstance(data, dict):
        raise SloError(f"{where} is {data!r}, expected a mapping")
    at_most: dict[tuple[str, str], float] = {}
    at_least: dict[str, float] = {}
    goodput: dict[str, float] | None = None
    fraction: float | None = None
    for name, value in data.items():
        if name in AT_LEAST:
            at_least[name] = _number(value, f"{where}.{name}")
        elif name in SPREADS:
            points = _mapping(value, POINTS, f"{where}.{name}")
            at_most |= {(name, point): most for point, most in points.items()}
        elif name == "goodput":
            goodput = _mapping(value, GOODPUT, f"{where}.goodput")
            fraction = goodput.pop("fraction", None)
        else:
            expected = ", ".join((*AT_LEAST, *SPREADS, "goodput"))
            raise SloError(f"{where} names {name!r}, expected some of {expected}")
    return Slo(at_most, at_least, goodput, fraction)


def _mapping(value: Any, names: tuple[str, ...], where: str) -> dict[str, float]:
    if not isinstance(value, dict) or (set(value) - set(names)):
        raise SloError(f"{where} is {value!r}, expected some of {', '.join(names)}, each with a number")
    return {name: _number(number, f"{where}.{name}") for name, number in value.items()}


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise SloError(f"{where} is {value!r}, expected a number that is not negative")
    return float(value)
