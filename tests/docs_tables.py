"""Tables of the docs that follow from code: `python -m tests.docs_tables --write` writes them again.

A page marks each with `<!-- generated: KIND NAME -->` and `<!-- end of generated -->`; tests compare them.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deployments import config, engine_settings
from deployments.contracts.routing_options import RoutingOptions
from deployments.ingress import openapi
from deployments.observability import metrics
from deployments.settings import Settings
from router.cli import parser

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("deployments", "router", "cluster", "experiments", "load_tests")
COMMAND = "python -m tests.docs_tables --write"
BLOCK = re.compile(r"(<!-- generated: (\w+) ?(\S*) -->\n).*?(<!-- end of generated -->)", re.DOTALL)
METRIC = re.compile(r"(?m)^\| `(to_router_\w+)` \| [^|]* \| [^|]* \|(?= [^|]+ \|$)")
SETTINGS = {
    name: value
    for module in (config, engine_settings)
    for name, value in vars(module).items()
    if isinstance(value, type)
    and issubclass(value, Settings)
    and value.__module__ == module.__name__
    and value is not config.AppArgs
}


def pages() -> list[Path]:
    """Every page that holds generated tables, or rows of metrics."""
    found = sorted((ROOT / "docs").glob("*.md"))
    return [page for page in found if BLOCK.search(text := page.read_text("utf-8")) or METRIC.search(text)]


def renewed(text: str) -> str:
    """A page's text with its generated tables, and its rows of metrics, as the code is now."""
    text = BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]](block[3])}\n{block[4]}", text)
    rows = metric_rows()
    return METRIC.sub(lambda row: rows.get(row[1], row[0]), text)


def metric_rows() -> dict[str, str]:
    """The first three columns of each metric's row; the fourth, how to read it, is written by hand."""
    rows = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            name = metric._name + ("_total" if isinstance(metric, Counter) else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames) or "—"
            rows[name] = f"| `{name}` | {labels} | {metric._documentation} |"
    return rows


def settings_table(name: str) -> str:
    """One group of settings: its docstring, then a row for each key."""
    group = SETTINGS[name]
    rows = [
        f"| `{key}` | `{_default(field)}` | {field.description or 'UNDESCRIBED: give it a docstring'} |"
        for key, field in group.model_fields.items()
    ]
    return _table(_summary(group.__doc__), "| key | default | meaning |\n|---|---|---|", rows)


def modules_table(package: str) -> str:
    """A row for each file of a package, with the first sentence of its docstring."""
    rows = []
    for file in sorted((ROOT / package).rglob("*.py"), key=lambda path: (path.parent, path.name)):
        path = file.relative_to(ROOT)
        name = path.parent.as_posix() + "/" if path.name == "__init__.py" else path.as_posix()
        summary = _summary(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))))
        rows.append(f"| {f'**`{name}`**' if name.endswith('/') else f'`{name}`'} | {_cell(summary)} |")
    return _table("", "| file | purpose |\n|---|---|", rows)


def commands_table(_: str) -> str:
    """Every command of `to-router`, with its arguments."""
    return "\n".join(_command("to-router", parser()))


def endpoints_table(_: str) -> str:
    """Every path of the OpenAPI document."""
    rows = [
        f"| `{method.upper()} {path}` | {_cell(operation['summary'])} |"
        for path, operations in openapi.document()["paths"].items()
        for method, operation in operations.items()
    ]
    return _table("", "| endpoint | purpose |\n|---|---|", rows)


def _command(name: str, command: argparse.ArgumentParser, purpose: str = "") -> Iterator[str]:
    subcommands = [action for action in command._actions if isinstance(action, argparse._SubParsersAction)]
    if not subcommands:
        yield f"## {name}\n\n{purpose[:1].upper()}{purpose[1:]}.\n" if purpose else f"## {name}\n"
        rows = [_argument(action) for action in command._actions if action.dest != "help"]
        yield _table("", "| argument | default | meaning |\n|---|---|---|", rows)
    for action in subcommands:
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for verb, subcommand in action.choices.items():
            yield from _command(f"{name} {verb}", subcommand, helps.get(verb, ""))


def _argument(action: argparse.Action) -> str:
    value = action.metavar or action.dest.upper()
    takes_value = action.nargs != 0
    names = ", ".join(f"`{flag} {value}`" if takes_value else f"`{flag}`" for flag in action.option_strings)
    if not names:
        names = f"`{value}`"
    default = "required" if action.required else ""
    if not default and action.default not in (None, False, "", argparse.SUPPRESS):
        default = f"`{action.default}`"
    help_text = re.sub(r"(; )?default: %\(default\)s", "", action.help or "").replace("%%", "%")
    if action.choices:
        choices = ", ".join(f"`{choice}`" for choice in action.choices)
        help_text = f"{help_text}; one of {choices}" if help_text else f"one of {choices}"
    return f"| {names} | {default} | {_cell(help_text)} |"


def _table(summary: str, head: str, rows: list[str]) -> str:
    return "\n".join([*([f"{summary}\n"] if summary else []), head, *rows, ""])


def _summary(docstring: str | None) -> str:
    """The first sentence of a docstring."""
    paragraph = " ".join((docstring or "UNDESCRIBED: give it a docstring").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z])", paragraph)[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, frozenset):
        return "[" + ", ".join(sorted(value)) + "]" if value else "empty"
    return "empty" if value in ({}, []) else repr(value)


def routing_table(_: str) -> str:
    """A row for each field of the body's `routing` object."""
    rows = [f"| `{name}` | {field.description} |" for name, field in RoutingOptions.model_fields.items()]
    return _table("", "| field | meaning |\n|---|---|", rows)


TABLES = {
    "routing": routing_table,
    "settings": settings_table,
    "modules": modules_table,
    "commands": commands_table,
    "endpoints": endpoints_table,
}


def main() -> int:
    """Write the tables with `--write`; without it, name the pages that are out of date."""
    stale = [page for page in pages() if renewed(page.read_text("utf-8")) != page.read_text("utf-8")]
    for page in stale:
        if "--write" in sys.argv:
            page.write_text(renewed(page.read_text("utf-8")), encoding="utf-8")
        sys.stdout.write(f"{page.relative_to(ROOT)}\n")
    return 0 if "--write" in sys.argv else len(stale)


if __name__ == "__main__":
    sys.exit(main())
