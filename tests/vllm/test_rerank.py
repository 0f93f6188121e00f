"""The hosted reranker against vLLM's own `/v1/rerank`, which serves the tiny cross-encoder."""

import math
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from business_api.errors import RetrievalUnavailable
from business_api.reranking import Reranker, open_reranker
from business_api.settings import RerankSettings, Settings
from tests.llm_fixtures import ROOT, environment, free_port, stop
from tests.tiny_cross_encoder import MAX_TOKENS, cross_encoder

__all__ = ["cross_encoder"]  # a fixture

pytestmark = pytest.mark.vllm

VLLM = ROOT / ".venv/vllm/bin/vllm"
READY_SECONDS = 600.0
QUESTION = "which port does the server listen on"
TEXTS = [
    "bananas are yellow",
    "the server does listen on which port",
    " ",
    "the server is yellow",
    "Grüße 🦊",
]
LONG = ["port " * 200, "yellow " * 80 + QUESTION, QUESTION + " yellow" * 80]


@pytest.fixture(scope="module")
def vllm_url(cross_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not VLLM.is_file():
        said = "vLLM's CPU build is not installed: `make .venv/vllm/.ready`"
        if os.environ.get("TANDEM_REQUIRE_VLLM") == "1":
            pytest.fail(said, pytrace=False)
        pytest.skip(said)
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "server.log"
    command = [str(VLLM), "serve", str(cross_encoder), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--served-model-name", "tiny", "--dtype", "float32", "--load-format", "safetensors"]
    command += ["--max-model-len", str(MAX_TOKENS), "--enforce-eager", "--kv-cache-memory-bytes", "67108864"]
    offline = environment(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=offline, start_new_session=True
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        stop(process)


def _wait_until_ready(process: "subprocess.Popen[bytes]", health: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    pytest.fail(
        f"vLLM did not come up; its log ends:\n{log.read_text(errors='replace')[-6000:]}", pytrace=False
    )


@pytest.fixture
async def hosted(vllm_url: str) -> AsyncIterator[Reranker]:
    reranker = await opened(RerankSettings(kind="hosted", url=vllm_url, model="tiny"))
    yield reranker
    await reranker.aclose()


async def opened(rerank: RerankSettings) -> Reranker:
    reranker = await open_reranker(Settings(rerank=rerank))
    assert reranker is not None
    return reranker


async def probabilities(folder: Path, texts: list[str]) -> list[float]:
    """What the ONNX model makes of the texts, as vLLM tells it: the sigmoid of the logit."""
    reranker = await opened(RerankSettings(kind="onnx", folder=folder))
    try:
        return [1 / (1 + math.exp(-logit)) for logit in await reranker.score(QUESTION, texts)]
    finally:
        await reranker.aclose()


async def test_vllm_gives_the_scores_of_the_local_model(hosted: Reranker, cross_encoder: Path) -> None:
    expected = await probabilities(cross_encoder, TEXTS)
    assert await hosted.score(QUESTION, TEXTS) == pytest.approx(expected, abs=1e-4)


async def test_vllm_cuts_what_is_longer_than_the_model_reads(hosted: Reranker, cross_encoder: Path) -> None:
    expected = await probabilities(cross_encoder, [*LONG, *TEXTS])
    assert await hosted.score(QUESTION, [*LONG, *TEXTS]) == pytest.approx(expected, abs=1e-4)


async def test_a_model_that_vllm_does_not_serve_is_unavailable(vllm_url: str) -> None:
    other = await opened(RerankSettings(kind="hosted", url=vllm_url, model="another"))
    with pytest.raises(RetrievalUnavailable, match="the reranking server"):
        await other.score(QUESTION, TEXTS)
    await other.aclose()
