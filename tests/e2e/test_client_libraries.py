"""The openai client, LangChain's ChatOpenAI and the LiteLLM SDK, each against the real application.

Each library has an environment of its own, which the test creates: their pins exclude each other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.client_libraries import LIBRARIES
from tests.e2e.conftest import Application

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(1200)]

ENVIRONMENTS = {
    ("openai", "openai async", "langchain"): ("openai==3.54.0", "langchain-openai==1.7.3"),
    ("litellm",): ("litellm==1.105.0",),
}
"""Libraries → the packages that are installed for them."""
ERRORS = {"litellm": "named by its status: 404"}
"""LiteLLM raises its own class for the status and drops the code."""
ALONE = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""LiteLLM would fetch its list of prices from the network while it is imported."""


@pytest.mark.parametrize("libraries", ENVIRONMENTS, ids="+".join)
def test_a_library_does_chat_streaming_tools_schema_and_errors(
    application: Application, tmp_path: Path, libraries: tuple[str, ...]
) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path)], check=True)
    python = str(tmp_path / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *ENVIRONMENTS[libraries]]
    subprocess.run(pip, check=True)
    script = str(Path(__file__).with_name("client_libraries.py"))
    command = [python, script, f"{application.url}/v1", *libraries]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=ALONE)
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout.splitlines()[-1])

    assert list(results) == list(libraries)
    for library, cases in results.items():
        assert "42" in cases["chat"], library
        assert "42" in cases["stream"], library
        assert cases["tools"] == ["add", ["a", "b"]], library
        assert cases["schema"] == ["sum"], library
        assert cases["error"] == ERRORS.get(library, "model_not_found"), library


def test_no_library_is_left_out() -> None:
    assert sorted(name for group in ENVIRONMENTS for name in group) == sorted(LIBRARIES)
