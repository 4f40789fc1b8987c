"""Service level objectives: read `slo.yaml` and compare the figures of a report with it.

Pure except for reading the file. Unknown names are errors: a misspelt limit would always be met.
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
    """The file is not a valid service level objective."""


@dataclass(frozen=True, slots=True)
class Slo:
    """Objectives of a load."""

    at_most: dict[tuple[str, str], float] = field(default_factory=dict)
    """(spread, point) → milliseconds."""
    at_least: dict[str, float] = field(default_factory=dict)
    goodput: dict[str, float] | None = None
    """Limits in milliseconds of one request."""
    goodput_fraction: float | None = None
    """Fraction of the requests that must meet all of them."""

    def missed(self, summary: dict[str, Any]) -> list[str]:
        """Return one line for each objective that `summary` does not meet; empty if all are met."""
        lines = []
        for name, least in self.at_least.items():
            value = summary[name]
            if value is None or value < least:
                lines.append(f"{name} is {value}, the minimum is {least:g}")
        for (name, point), most in self.at_most.items():
            measured = summary[name]
            if measured is None:
                lines.append(f"{name} {point} was not measured, the limit is {most:g} ms")
            elif measured[point] > most:
                lines.append(f"{name} {point} is {measured[point]:g} ms, the limit is {most:g} ms")
        if self.goodput_fraction is not None:
            fraction = summary["goodput"]["fraction"]
            if fraction is None or fraction < self.goodput_fraction:
                lines.append(f"goodput fraction is {fraction}, the minimum is {self.goodput_fraction:g}")
        return lines


def load_slo(file: Path, profile: str) -> Slo:
    """Read the objectives of one profile.

    Raises:
        SloError: the file cannot be read, has no such profile, or has an unknown name.
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
    """Parse one profile.

    Raises:
        SloError: a name is unknown or a value is not a number.
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
