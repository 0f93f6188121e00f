"""Real OpenAI clients work unchanged: each script runs as a program of its own against a running stack.

By default the LLM is scripted; set TANDEM_URL (such as http://127.0.0.1:8000) to run against your own stack.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import running_stack

pytestmark = pytest.mark.clients
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if own := os.environ.get("TANDEM_URL"):
        yield f"{own}/v1"
        return
    with running_stack(tmp_path_factory.mktemp("var")) as stack:
        yield f"{stack.url}/v1"


def run(*command: str) -> str:
    """What the program printed; its exit code must be 0."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=HERE)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_openai_python_sync_and_async(base_url: str) -> None:
    assert "async:" in run(sys.executable, "openai_python.py", base_url)


def test_langchain(base_url: str) -> None:
    assert "error: OpenAIModelNotFoundError" in run(sys.executable, "langchain_chat.py", base_url)


def test_openai_node(base_url: str) -> None:
    if not shutil.which("node") or not (HERE / "node_modules").is_dir():
        if os.environ.get("TANDEM_REQUIRE_NODE"):
            pytest.fail("node or its packages are missing: make .venv/node/.ready")
        pytest.skip("node or its packages are missing: make .venv/node/.ready")
    assert "models: ok" in run("node", "openai_node.mjs", base_url)


def test_curl(base_url: str) -> None:
    body = '{"model": "tandem", "messages": [{"role": "user", "content": "Which port does the LLM use?"}]}'
    command = (
        "curl",
        "-sS",
        "--fail",
        f"{base_url}/chat/completions",
        "-H",
        "Content-Type: application/json",
    )
    assert '"citations":[{"marker":1' in run(*command, "-d", body)
    streamed = run(*command, "-N", "-d", body.replace('"model"', '"stream": true, "model"', 1))
    assert streamed.rstrip().endswith("data: [DONE]")
