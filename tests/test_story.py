"""The whole story on real parts: documents, embedder, index, LLM server. Question in, cited answer out."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.llm_fixtures import command, environment, free_port, running_llm, stop
from tests.programs import ROOT, Program, run, serving_program

QUESTION = "Which port does the LLM server listen on?"
ENGINES = [
    pytest.param("embedded_llm", marks=pytest.mark.embedded),
    pytest.param("vllm_server", marks=pytest.mark.vllm),
]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `var` with a few of this project's own pages ingested."""
    var = tmp_path_factory.mktemp("story")
    pages = [str(ROOT / "docs" / name) for name in ("llm-server.md", "errors.md")]
    done = run("ingest", *pages, var=var)
    assert done.returncode == 0, done.stdout + done.stderr
    return var


@pytest.fixture(params=ENGINES)
def llm_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
def service(documents: Path, llm_url: str) -> Iterator[Program]:
    with serving_program(documents, llm_url, BUSINESS_API_LLM__FIRST_DELTA_DEADLINE="280") as running:
        yield running


def test_a_question_gets_the_fact_and_a_verbatim_citation(service: Program) -> None:
    status, answered, headers = service.chat(QUESTION)
    assert status == 200, answered
    assert "8001" in answered["answer"]
    citation = answered["tandem"]["citations"][0]
    page = (ROOT / citation["document"]).read_text() if "/" in citation["document"] else ""
    page = page or (ROOT / "docs" / citation["document"]).read_text()
    assert page[citation["start"] : citation["end"]] == citation["quote"]
    assert "8001" in citation["quote"]
    assert answered["tandem"]["versions"]["index"].startswith("kb__v1_all-minilm-l6-v2@")
    assert answered["usage"]["completion_tokens"] > 0
    assert headers["X-Request-Id"] == answered["tandem"]["exchange"]
    _, kept = service.get(f"/exchanges/{answered['tandem']['exchange']}")
    assert kept["outcome"] == "answered"
    assert kept["answer"] == answered["answer"]
    assert kept["passages"]
    assert service.get("/readyz")[0] == 200
    assert service.stop() == 0


@pytest.mark.embedded
def test_the_llm_server_may_die_and_come_back_while_the_service_runs_on(
    documents: Path, tmp_path: Path
) -> None:
    with running_llm("llama.cpp", tmp_path) as url, serving_program(documents, url) as service:
        assert service.chat(QUESTION)[0] == 200
        subprocess.run(
            ["pkill", "-9", "-f", f"llm-server serve .* --port {url.split(':')[2][:-3]}"], check=True
        )
        status, answered, headers = service.chat("And now?")
        assert status == 503
        assert answered["error"]["code"] == "upstream_unavailable"
        assert int(headers["Retry-After"]) >= 1
        status, ready = service.get("/readyz")
        assert status == 503
        assert "cannot be reached" in ready["missing"]["llm"]
        assert service.get("/healthz")[0] == 200
        again = subprocess.Popen(
            command("serve", "--port", url.split(":")[2][:-3]), env=environment(), stderr=subprocess.DEVNULL
        )
        try:
            _until_ready(service)
            assert service.chat(QUESTION)[0] == 200
        finally:
            stop(again)


def _until_ready(service: Program) -> None:
    deadline = time.monotonic() + 120
    while service.get("/readyz")[0] != 200:
        assert time.monotonic() < deadline, "not ready again"
        time.sleep(0.2)


@pytest.mark.embedded
def test_one_process_gives_the_same_answer_as_two_services(documents: Path, tmp_path: Path) -> None:
    """Both LLM servers are fresh: a prompt that is cached already is computed in another order."""
    with running_llm("llama.cpp", tmp_path) as url, serving_program(documents, url) as service:
        apart = service.chat(QUESTION)[1]
    with serving_program(
        documents,
        "asgi://llm_server.embedded:app",
        LLM_SERVER_VAR=str(ROOT / "var"),
        OMP_WAIT_POLICY="passive",
    ) as service:
        together = service.chat(QUESTION)[1]
    assert together["answer"] == apart["answer"]
    assert together["tandem"]["citations"] == apart["tandem"]["citations"]
    assert together["tandem"]["versions"] == apart["tandem"]["versions"]


KILLED_AFTER_ANSWER = """
import json, sys, urllib.request
for number in range(8):
    sent = json.dumps({"message": f"question {number}", "assistant": "plain"}).encode()
    asked = urllib.request.Request(sys.argv[1] + "/chat", sent, {"Content-Type": "application/json"})
    print(json.load(urllib.request.urlopen(asked))["tandem"]["exchange"], flush=True)
"""


def test_what_a_caller_has_read_is_recorded_even_if_the_service_is_killed_at_once(documents: Path) -> None:
    from tests.fakes import FakeLlm, serving

    with serving(FakeLlm()) as llm, serving_program(documents, f"{llm}/v1") as service:
        done = subprocess.run(
            [sys.executable, "-c", KILLED_AFTER_ANSWER, service.url],
            capture_output=True,
            text=True,
            check=True,
        )
        service.stop(signal.SIGKILL)
    acknowledged = done.stdout.split()
    assert len(acknowledged) == 8
    with serving(FakeLlm()) as llm, serving_program(documents, f"{llm}/v1") as service:
        kept = [row["id"] for row in service.get("/exchanges?limit=500")[1]["exchanges"]]
    assert sorted(set(acknowledged) & set(kept)) == sorted(acknowledged)
    assert len(kept) == len(set(kept))


def test_a_stop_lets_running_answers_end(documents: Path) -> None:
    from tests.fakes import FakeLlm, serving

    slow = FakeLlm(pieces=["word "] * 20, delay=0.1)
    with serving(slow) as llm, serving_program(documents, f"{llm}/v1") as service:
        caller = subprocess.Popen(
            [sys.executable, "-c", KILLED_AFTER_ANSWER.replace("range(8)", "range(1)"), service.url],
            stdout=subprocess.PIPE,
        )
        while not slow.running:
            time.sleep(0.01)
        assert service.stop() == 0
        said, _ = caller.communicate(timeout=60)
    assert len(said.split()) == 1
    assert caller.returncode == 0


def test_a_port_in_use_is_one_clear_line(documents: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("serve", "--port", str(taken.getsockname()[1]), var=documents)
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "--port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_store_that_another_process_holds_is_one_clear_line(documents: Path) -> None:
    with serving_program(documents, f"http://127.0.0.1:{free_port()}/v1"):
        done = run("ingest", str(ROOT / "README.md"), var=documents)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "process" in done.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BUSINESS_API_PORT": "99999"}, "port"),
        ({"BUSINESS_API_LLM__MOOD": "x"}, "mood"),
        ({"BUSINESS_API_ASSISTANTS": "/nowhere/assistants.toml"}, "assistants.toml"),
        ({"BUSINESS_API_EMBEDDING__FOLDER": "/nowhere"}, "make models"),
        ({"BUSINESS_API_PROMPTS": "/nowhere"}, "no template"),
    ],
)
def test_what_an_operator_got_wrong_is_named(documents: Path, variables: dict[str, str], said: str) -> None:
    done = run("serve", var=documents, **{"BUSINESS_API_PORT": str(free_port()), **variables})
    assert done.returncode in (1, 2)
    assert said in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_a_template_that_does_not_exist_stops_the_start_and_lists_those_that_do(
    documents: Path, tmp_path: Path
) -> None:
    own = tmp_path / "assistants.toml"
    own.write_text('[tandem]\ncollection = "kb"\ntemplate = "answer_from_passages/v99"\n')
    done = run("serve", "--port", str(free_port()), var=documents, BUSINESS_API_ASSISTANTS=str(own))
    assert done.returncode == 1
    assert "answer_from_passages/v1" in done.stderr


def test_paths_that_do_not_exist_are_refused_before_any_work(tmp_path: Path) -> None:
    done = run("ingest", str(tmp_path / "nowhere"), var=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in done.stderr


def test_effective_settings_are_shown_without_secrets(tmp_path: Path) -> None:
    done = run("serve", "--print-settings", var=tmp_path, BUSINESS_API_LLM__API_KEY="sk-secret")
    assert done.returncode == 0
    assert "first_delta_deadline" in done.stdout
    assert "sk-secret" not in done.stdout


def test_keys_are_made_listed_and_revoked_from_the_command_line(tmp_path: Path) -> None:
    secret = run("keys", "create", "alice", var=tmp_path).stdout.strip()
    assert secret.startswith("tdm_")
    listed = run("keys", "list", "--json", var=tmp_path).stdout
    assert "alice" in listed
    assert secret not in listed
    assert run("keys", "revoke", secret[:12], var=tmp_path).returncode == 0
    assert run("keys", "revoke", "tdm_nobody__", var=tmp_path).returncode == 1
    assert secret.encode() not in (tmp_path / "keys.sqlite").read_bytes()
