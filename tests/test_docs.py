"""Every setting, error code and command has its line in docs."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

import deployments.contracts.errors
from deployments import config
from deployments.contracts.errors import ApiError
from router.cli import parser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
SETTINGS = [
    found
    for found in vars(config).values()
    if isinstance(found, type)
    and issubclass(found, config.Settings)
    and found not in (config.Settings, config.AppArgs)
]
ERRORS = {
    name: found
    for name, found in vars(deployments.contracts.errors).items()
    if isinstance(found, type) and issubclass(found, ApiError)
}
VERDICTS = {"Verdict"}
"""What the ledger says of a key's limits becomes an error at the ingress."""


def rows(settings: type[config.Settings]) -> list[str]:
    """The lines of its table in docs/configuration.md."""
    return [
        f"| `{name}` | `{_default(field)}` | {field.description or 'UNDESCRIBED: give it a docstring'} |"
        for name, field in settings.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, config.Settings):
        return "see below"
    if isinstance(value, frozenset):
        return "[" + ", ".join(sorted(value)) + "]"
    return "empty" if value in ({}, []) else repr(value)


def codes() -> set[str]:
    """Every `code` that the deployments give an error, read from their source."""
    found = {error.default_code for error in ERRORS.values()}
    for file in (ROOT / "deployments").rglob("*.py"):
        for call in _calls(ast.parse(file.read_text(encoding="utf-8"))):
            at = 0 if getattr(call.func, "id", "") in VERDICTS else 1
            found |= {
                arg.value
                for arg in call.args[at : at + 1]
                if isinstance(arg, ast.Constant) and isinstance(arg.value, str)
            }
    return found


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS.keys() | VERDICTS:
            yield node


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda found: found.__name__)
def test_every_setting_stands_in_the_docs_as_the_code_describes_it(settings: type[config.Settings]) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")

    assert "\n".join(rows(settings)) in page


def test_every_error_code_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", (DOCS / "errors.md").read_text(encoding="utf-8")))

    assert codes() - explained == set()


def test_every_command_is_shown_somewhere() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *DOCS.glob("*.md")])
    commands = next(
        action.choices
        for action in parser()._actions
        if isinstance(action, argparse._SubParsersAction) and action.choices
    )

    assert [name for name in commands if f"to-router {name}" not in pages] == []
