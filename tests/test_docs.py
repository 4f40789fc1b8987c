"""Settings, errors, commands, modules and decisions have their lines in docs; links and paths resolve."""

import argparse
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from deployments.contracts.errors import ErrorCode
from router.cli import parser
from router.learning.record import from_json, to_json
from tests import docs_tables

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted(DOCS.glob("*.md")),
]
FOLDERS = "router|deployments|cluster|experiments|load_tests|tests|docs"


def commands() -> list[str]:
    """The names of all commands of `to-router`."""
    choices = (
        action.choices
        for action in parser()._actions
        if isinstance(action, argparse._SubParsersAction) and action.choices
    )
    return list(next(choices))


@pytest.mark.parametrize("page", docs_tables.pages(), ids=lambda page: page.name)
def test_generated_tables_are_as_the_code_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert text == docs_tables.renewed(text), f"write it again: {docs_tables.COMMAND}"


def test_every_setting_and_module_has_its_table() -> None:
    kinds = {
        (block[2], block[3])
        for page in docs_tables.pages()
        for block in docs_tables.BLOCK.finditer(page.read_text(encoding="utf-8"))
    }

    assert {("settings", name) for name in docs_tables.SETTINGS} <= kinds
    assert {("modules", package) for package in docs_tables.PACKAGES} <= kinds
    assert not any("UNDESCRIBED" in page.read_text(encoding="utf-8") for page in docs_tables.pages())


def test_every_argument_has_a_help_text() -> None:
    assert re.findall(r"(?m)^\| (.*) \|  \|$", (DOCS / "cli.md").read_text(encoding="utf-8")) == []


def test_every_error_code_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", (DOCS / "errors.md").read_text(encoding="utf-8")))

    assert set(ErrorCode) - explained == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_resolves(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        found = (page.parent / file) if file else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)

    assert broken == []


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"(?s)```.*?```", "", page.read_text(encoding="utf-8"))
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_that_is_named_exists(page: Path) -> None:
    """Except a `-report` folder, which the reader's own command makes."""
    text = page.read_text(encoding="utf-8")
    paths = re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./-]*[\w/])", text)

    assert [path for path in paths if not (ROOT / path).exists() and not path.endswith("-report")] == []


def test_every_page_that_code_names_exists() -> None:
    code = [file for folder in docs_tables.PACKAGES for file in (ROOT / folder).rglob("*.py")]
    named = {
        path for file in code for path in re.findall(r"docs/[\w-]+\.md", file.read_text(encoding="utf-8"))
    }

    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    modules = re.findall(rf"python -m ((?:{FOLDERS})(?:\.\w+)*)", text)
    modules += re.findall(rf"`((?:{FOLDERS})(?:\.\w+)+)`", text) if page.name == "performance.md" else []
    missing = [name for name in modules if find_spec(name) is None]
    verbs = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = re.findall(r"(?m)(?:`|^|&& )make ((?:[a-z-]+ ?)+)(?:`|$| +#)", text)

    assert missing == []
    assert {verb for verbs_ in named for verb in verbs_.split()} - verbs == set()
    assert set(re.findall(r"`to-router ([a-z-]+)", text)) - set(commands()) == set()


def test_every_test_that_keeps_a_fault_out_exists() -> None:
    rows = [line.split("|") for line in (DOCS / "faults.md").read_text(encoding="utf-8").splitlines()]
    numbered = [row[3] for row in rows if len(row) > 6 and row[1].strip().isdigit()]
    cases = [row[2] for row in rows if len(row) == 5]
    named = {name for cell in (*numbered, *cases) for name in re.findall(r"`([a-z0-9_]+)`", cell)}
    there = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def test_(\w+)", file.read_text(encoding="utf-8"))
    }

    assert len(numbered) == 30
    assert len(named) > 100
    assert named - there == set()


@pytest.mark.parametrize("name", commands())
def test_every_command_is_shown_somewhere(name: str) -> None:
    pages = [page.read_text(encoding="utf-8") for page in PAGES if page.name != "cli.md"]

    assert any(f"to-router {name}" in page for page in pages)


def test_records_of_the_decision_log_are_shown_with_their_fields() -> None:
    lines = re.findall(r'(?m)^\{"type".+$', (DOCS / "operations.md").read_text(encoding="utf-8"))
    shown = [json.loads(line) for line in lines]
    records = [record for line in shown if (record := from_json(line)) is not None]

    assert [list(line) for line in shown] == [list(to_json(record, with_texts=False)) for record in records]
    assert {record.type for record in records} == {"decision", "feedback"}


def test_every_decision_has_a_date() -> None:
    text = (DOCS / "decisions.md").read_text(encoding="utf-8")
    titles = re.findall(r"(?m)^## (.+)$", text)

    assert titles
    assert [title for title in titles if not re.match(r"20\d\d-\d\d-\d\d · ", title)] == []
