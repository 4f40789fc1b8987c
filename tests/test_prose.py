"""Plain words in docs, docstrings, comments and messages.

`docs/glossary.md` is the home of the words that are not used; `python -m tests.test_prose [PATH …]` prints
every finding below the paths, or the number of findings in each area.
"""

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
AREAS = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"),
    *("Makefile", "pyproject.toml", "serve_config.yaml"),
)
FOLDERS = ("cluster", "deployments", "docs", "experiments", "load_tests", "router", "tests")
ALLOWED = {
    r"(?:in|into) (?:one|its|their|the same|that|this|several|two) place|in places?\b": "idiom",
    r"tak(?:es?|ing) place": "idiom",
    r"(?:to|may|can|cannot|must|Ray|that|and|or) places? (?:a|the|its|each|every|on|replicas|them)\b": "verb",
    r"decimal places?": "of a number",
    r"(?:connection|ECONN)\w* ?refused": "TCP's word",
    r"model's refusals?|refusals? of (?:a|the) model": "what a model writes",
    r"(?:people|persons?|users?|developers?|engineers?|operators?|teams?|readers?|those|humans?|newcomers?|attackers?"
    r"|someone|anyone|everyone|authors?|maintainers?|one|you|he|she|they),? who": "a sentence about people",
    r"stands? for|stand-?in": "a name stands for something",
    r"told the true task": "a key of comparison.json",
    r"sleep: for tests": "a parameter",
    r"\*\*Ask\*\*|\bAsk\b(?=(?:,| (?:page|part|does)))": "the name of a part of the page",
    r"(?:threads?|process(?:es)?|worker|event loop)\b[^.\n]{0,40}\b(?:sleep(?:s|ing)?|wakes?)\b": "thread",
    r"(?:quality|noise|rounding|throughput) floor|floor of (?:the|this)": "the lower bound of a figure",
    r"[Ss]leep mode": "vLLM's feature",
}
"""Right uses of words of the table, each with its reason."""

ITEMS_OF_A_BENCHMARK = (
    "router/labels/judge.py",
    "cluster/pocket",
    "experiments",
    "load_tests",
    "tests/cluster/pocket",
    "tests/experiments",
    "docs/claims.md",
    "docs/modules.md",
    "docs/pocket-experts.md",
    "docs/research-log.md",
)
ALLOWED_IN = {
    "question": (*ITEMS_OF_A_BENCHMARK, "deployments/contracts/message_words.py"),
    "questions": ITEMS_OF_A_BENCHMARK,
    "ask": ("deployments/dashboard", "docs/page.md"),
    "stand": ("router/labels/judge.py",),
    "who": ("deployments/contracts/message_words.py",),
    "whom": ("deployments/contracts/message_words.py",),
    "tell": ("deployments/contracts/message_words.py",),
}
"""Words that mean something else below these paths: items of a benchmark; what a person does on the page; the
text of a judge's prompt, which is part of its cache's keys; words of humans' messages."""

SKIPPED = (
    "deployments/dashboard/static/vendor",
    "tests/deployments/dashboard/vendor",
    "tests/cluster/kuberay/schemas",
    "tests/router/fixtures",
    "cluster/local/experts",
    "cluster/local/policy/",
    "cluster/local/claims-policy/",
    "cluster/check/models",
)
"""Files of others, and files that a command writes."""


class Finding(NamedTuple):
    """A word that is not used, at a line of a file."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        """The line that people read."""
        return f"{self.path}:{self.line}: {self.word} → {self.instead}"


def words() -> dict[str, str]:
    """Word or phrase → what to say instead, from the second table of the glossary."""
    table = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").split("| say | do not say |")[1]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")]
    return {word.strip(): say.strip() for say, avoid in rows for word in avoid.split(",")}


WORDS = words()
_ANY = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in sorted(WORDS, key=len, reverse=True))
PATTERN = re.compile(rf"(?<![\w./$-])(?:{_ANY})(?![\w/-])", re.IGNORECASE)
CODE = re.compile(r"```.*?```|``.*?``|`[^`]*`|<!--.*?-->|\]\([^)]*\)", re.DOTALL)
JAVASCRIPT = re.compile(r"//.*|/\*(?s:.*?)\*/|\"(?:\\.|[^\"\\\n])*\"|`(?:\\.|[^`\\])*`")
EXCEPTIONS = re.compile("|".join(ALLOWED))


def findings(path: Path) -> list[Finding]:
    """Every word of one file that the glossary replaces."""
    name = path.relative_to(ROOT).as_posix()
    found = []
    for line, text in passages(path):
        prose = EXCEPTIONS.sub(_blank, CODE.sub(_blank, text))
        for match in PATTERN.finditer(prose):
            word = " ".join(match.group().split())
            if name.startswith(ALLOWED_IN.get(word.lower(), ("no path",))):
                continue
            found.append(Finding(name, line + prose.count("\n", 0, match.start()), word, WORDS[word.lower()]))
    return sorted(set(found))


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def passages(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each piece of prose in a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from _python(text, is_test="tests" in path.parts)
    elif path.name == "CHANGELOG.md":
        yield (
            1,
            re.split(r"(?m)^## ", text, maxsplit=2)[0] + "## " + re.split(r"(?m)^## ", text, maxsplit=2)[1],
        )
    elif path.name == "glossary.md":
        yield 1, text.split("## What not to say")[0]
    elif path.suffix == ".html":
        yield 1, re.sub(r"(?s)<(script|style).*?</\1>|<(?!/)\w+|\b[\w-]+=(?=\")|</\w+>", _blank, text)
    elif path.suffix in {".js", ".css"}:
        for match in JAVASCRIPT.finditer(text):
            if " " in match.group():
                line = text.count("\n", 0, match.start()) + 1
                yield line, re.sub(r"`|\$\{.*?\}", _blank, match.group())
    elif path.suffix in {".md", ".txt"}:
        yield 1, text
    else:
        for number, line in enumerate(text.splitlines(), start=1):
            if "#" in line or re.match(r"\s*(?:title|description|summary|help):", line):
                yield number, line


def _python(text: str, *, is_test: bool) -> Iterator[tuple[int, str]]:
    """Comments, docstrings, messages: in tests only the first two, and the tests' names."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    tree = ast.parse(text)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            if id(node) in docstrings or not is_test:
                yield node.lineno, node.value
        elif (
            is_test
            and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
        ):
            yield node.lineno, node.name.replace("_", " ")


def files(under: str = ".") -> list[Path]:
    """The project's files with prose below a path."""
    start = ROOT / under
    kinds = {".py", ".md", ".html", ".js", ".yaml", ".toml", ".env", ".Dockerfile"}
    paths = [start] if start.is_file() else sorted(start.rglob("*"))
    return [
        path
        for path in paths
        if path.is_file()
        and (path.suffix in kinds or path.name == "Makefile")
        and (relative := path.relative_to(ROOT)).parts[0] in AREAS + FOLDERS
        and not relative.as_posix().startswith(SKIPPED)
    ]


@pytest.mark.parametrize("area", AREAS + FOLDERS)
def test_prose_uses_the_words_of_the_glossary(area: str) -> None:
    found = [str(finding) for path in files(area) for finding in findings(path)]

    assert found == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", '"""The door."""'),
        ("a.py", 'class A:\n    size: int = 0\n    """Of the door."""\n'),
        ("a.py", "size = 0  # of the door\n"),
        ("a.py", 'raise ValueError(f"the door is {1}")'),
        ("a.html", "<p class='x'>The door</p>"),
        ("a.js", 'text("the door");'),
        ("a.js", "// the door\n"),
        ("a.yaml", "key: 1 # the door\n"),
        ("a.md", "The door.\n"),
    ],
)
def test_prose_is_found_in_every_kind_of_file(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")

    assert [match for _, prose in passages(file) for match in PATTERN.findall(prose)] == ["door"]


def test_only_whole_words_outside_code_are_found() -> None:
    text = "The door refuses `door` and whoever asks; a stand-alone place_group, /door, in-place."

    assert PATTERN.findall(CODE.sub(_blank, text)) == ["door", "refuses", "whoever", "asks"]


if __name__ == "__main__":
    if sys.argv[1:]:
        for argument in sys.argv[1:]:
            for file in files(argument):
                sys.stdout.writelines(f"{finding}\n" for finding in findings(file))
    else:
        counts = Counter(
            "/".join(file.relative_to(ROOT).parts[:2]) for file in files() for _ in findings(file)
        )
        sys.stdout.writelines(f"{count:5} {area}\n" for area, count in sorted(counts.items()))
