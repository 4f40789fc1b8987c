"""Engine arguments of an expert: whether vLLM has each of them, and the kind and range of its value."""

from collections.abc import Iterator, Mapping
from typing import Any

from cluster.check.finding import Finding
from cluster.check.known_keys import engine_arguments, engine_kinds
from cluster.check.numbers import ENGINE, wrong_kinds, wrong_numbers


def engine_errors(engine: Mapping[str, Any], where: str) -> Iterator[Finding]:
    """Find the engine arguments that vLLM does not know, or whose values it does not take.

    Args:
        engine: `args.engine` of the application.
        where: the application, for the keys of the findings.
    """
    key = f"{where}.args.engine"
    known = engine_arguments()
    for name in sorted(str(name) for name in engine if known and name not in known):
        yield Finding("error", f"{key}.{name}", "vLLM has no such engine argument")
    yield from wrong_numbers(engine, ENGINE, key)
    others = {name: value for name, value in engine.items() if name not in ENGINE}
    yield from wrong_kinds(others, engine_kinds(), key)
