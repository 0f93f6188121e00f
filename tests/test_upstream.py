"""The LLM server over a network: away, back again, closing connections, serving another model."""

import pytest

from business_api.errors import UpstreamUnavailable
from business_api.exchange import Message, Prompt
from business_api.settings import LlmSettings
from business_api.transport import Network
from business_api.upstream import Upstream
from tests.fakes import FakeLlm, serving

PROMPT = Prompt(messages=(Message(role="user", content="Where?"),), max_tokens=20)


async def said(upstream: Upstream) -> str:
    running = await upstream.generate(PROMPT, {}, "id-1")
    try:
        return "".join([delta.text async for delta in running])
    finally:
        await running.aclose()


async def test_a_server_that_is_not_there_is_unavailable_and_asked_again_when_it_is_back() -> None:
    with serving(FakeLlm()) as url:
        pass
    settings = LlmSettings(url=f"{url}/v1")
    transport = Network.open(settings.url, settings.connect_deadline)
    upstream = Upstream(transport, settings)
    with pytest.raises(UpstreamUnavailable):
        await said(upstream)
    assert await upstream.problem() == "the LLM server cannot be reached"
    with serving(FakeLlm("Back."), port=int(url.rpartition(":")[2])):
        assert await said(upstream) == "Back."
        assert await upstream.problem() is None
        await transport.aclose()


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    """vLLM closes idle connections after 5 s: the next request on one must not fail."""
    with serving(FakeLlm("One.")) as url:
        settings = LlmSettings(url=f"{url}/v1")
        transport = Network.open(settings.url, settings.connect_deadline)
        upstream = Upstream(transport, settings)
        assert await said(upstream) == "One."
    with serving(FakeLlm("Two."), port=int(url.rpartition(":")[2])):
        assert await said(upstream) == "Two."
        await transport.aclose()


async def test_an_unknown_served_name_is_a_problem_that_is_named() -> None:
    with serving(FakeLlm()) as url:
        settings = LlmSettings(url=f"{url}/v1", model="other")
        transport = Network.open(settings.url, settings.connect_deadline)
        assert await Upstream(transport, settings).problem() == "the LLM server does not serve other"
        await transport.aclose()
