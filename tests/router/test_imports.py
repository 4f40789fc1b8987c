"""The library stays light: what it does not need it does not import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import router

HEAVY = (
    "ray",
    "vllm",
    "torch",
    "sklearn",
    "scipy",
    "matplotlib",
    "faiss",
    "transformers",
    "openvino",
    "fastapi",
)
FILES = sorted(Path(router.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    "module", ["router.policy", "router.cli", "router.training.train", "router.evaluation.evaluate"]
)
def test_importing_pulls_in_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_is_long_and_each_says_what_it_is_for(file: Path) -> None:
    text = file.read_text(encoding="utf-8")

    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text))
