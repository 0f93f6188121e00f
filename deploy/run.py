"""Both services on this machine, with this project's own documentation as the knowledge base: `make run`.

Prepares the models (once), starts llm_server, ingests README and docs/, starts business_api, says how to ask,
and stops both on Ctrl-C. Standard library only: it belongs to neither tier.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "var" / "logs"
QUESTION = "Which port does the LLM server listen on?"
MODEL = "smollm2-135m-instruct"


def main() -> int:
    """Run until Ctrl-C or until one of the services ends; the exit code says which."""
    asked = arguments()
    began = time.monotonic()
    business_port, llm_port = port("BUSINESS_API_PORT", 8000), port("LLM_SERVER_PORT", 8001)
    if wrong := wrong_ports(business_port, llm_port):
        say(wrong)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    services: list[subprocess.Popen[bytes]] = []
    try:
        prepare(asked.engine)
        llm_url = f"http://127.0.0.1:{llm_port}"
        services.append(start("llm-server", llm_command(asked.engine, llm_port)))
        first_run = ingest()
        os.environ["BUSINESS_API_LLM__URL"] = f"{llm_url}/v1"
        serve = [venv("business", "business-api"), "serve", "--port", str(business_port)]
        services.append(start("business-api", serve))
        url = f"http://127.0.0.1:{business_port}"
        wait_until_ready(url, services, patience=600 if asked.engine == "vllm" else 120)
        say(f"ready in {time.monotonic() - began:.1f} s")
        if first_run:
            first_answer(url, began)
        print(banner(url), flush=True)
        return wait(services)
    except KeyboardInterrupt:
        return 0
    except Failed as exc:
        say(str(exc))
        return 1
    finally:
        stop(services)


class Failed(Exception):
    """Something that the message explains."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument(
        "--engine", choices=("embedded", "vllm"), default="embedded", help="what runs the model"
    )
    return parser.parse_args()


def prepare(engine: str) -> None:
    """Make the model files, or see that they are there."""
    more = ["--for-vllm"] if engine == "vllm" else []
    run([venv("models", "python"), "-m", "models.prepare", *more], "the models could not be prepared")


def llm_command(engine: str, port: int) -> list[str]:
    """What starts the LLM tier; vLLM runs the same weights as the embedded engine."""
    return [
        venv("llm", "llm-server"),
        "serve",
        MODEL,
        "--port",
        str(port),
        *(["--engine", "vllm"] if engine == "vllm" else []),
    ]


def ingest() -> bool:
    """Index README and docs/; whether there was something new."""
    command = [venv("business", "business-api"), "ingest", "README.md", "docs"]
    first = not (Path(os.environ.get("BUSINESS_API_VAR", ROOT / "var")) / "index").exists()
    run(command, "the documentation could not be ingested")
    return first


def start(name: str, command: list[str]) -> subprocess.Popen[bytes]:
    """Start a service; it writes its own log and gets no Ctrl-C but ours."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / f"{name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def run(command: list[str], otherwise: str) -> None:
    """Run a step in the foreground. Raises Failed."""
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise Failed(otherwise)


def wait_until_ready(url: str, services: list[subprocess.Popen[bytes]], patience: float) -> None:
    """Until /readyz says 200. Raises Failed when a service ended, or at the limit."""
    deadline = time.monotonic() + patience
    missing = "no answer"
    while time.monotonic() < deadline:
        check_alive(services)
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except urllib.error.HTTPError as exc:
            missing = str(json.load(exc).get("missing"))
        except OSError:
            pass
        time.sleep(0.1)
    raise Failed(f"not ready after {patience:.0f} s: {missing}; logs are in {LOGS.relative_to(ROOT)}/")


def check_alive(
    services: list[subprocess.Popen[bytes]], names: tuple[str, ...] = ("llm-server", "business-api")
) -> None:
    """Raises Failed if a service has ended."""
    for service, name in zip(services, names, strict=False):
        if service.poll() is not None:
            tail = "\n".join((LOGS / f"{name}.log").read_text(errors="replace").splitlines()[-15:])
            raise Failed(f"{name} ended with code {service.returncode}:\n{tail}")


def first_answer(url: str, began: float) -> None:
    """Ask once and show the answer, its citation and the time since the downloads ended."""
    body = json.dumps({"message": QUESTION}).encode()
    request = urllib.request.Request(f"{url}/chat", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            answered: dict[str, Any] = json.load(reply)
    except OSError as exc:
        say(f"the first question was not answered: {exc}")
        return
    say(f"first answer {time.monotonic() - began:.1f} s after the downloads ended")
    print(f"\n  Q  {QUESTION}\n  A  {answered['answer']}")
    for citation in answered["tandem"]["citations"]:
        print(f'     [{citation["marker"]}] {citation["document"]}: "{" ".join(citation["quote"].split())}"')


def banner(url: str) -> str:
    """How to ask."""
    return f"""
  Chat page    {url}/
  Exchanges    {url}/exchanges

  curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "tandem", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  answer = client.chat.completions.create(
      model="tandem", messages=[{{"role": "user", "content": "{QUESTION}"}}])
  print(answer.choices[0].message.content, answer.tandem["citations"])

  Logs in var/logs/. Ctrl-C stops both services.
"""


def wait(services: list[subprocess.Popen[bytes]]) -> int:
    """Until the business API ends by itself. Without its LLM server it goes on and says so to its callers."""
    llm, business = services
    told = False
    while business.poll() is None:
        if llm.poll() is not None and not told:
            told = True
            command = " ".join(str(part).removeprefix(f"{ROOT}/") for part in llm.args)  # type: ignore[union-attr]
            say(f"llm-server ended with code {llm.returncode}; questions get 503 until it is back: {command}")
        time.sleep(0.5)
    check_alive(services[1:], ("business-api",))
    return 1


def stop(services: list[subprocess.Popen[bytes]]) -> None:
    """Ask both to stop, the front first; insist after a while."""
    for service in reversed(services):
        if service.poll() is None:
            service.send_signal(signal.SIGTERM)
    for service in reversed(services):
        try:
            service.wait(timeout=30)
        except subprocess.TimeoutExpired:
            service.kill()
    if services:
        say("stopped")


def venv(tier: str, command: str) -> str:
    """A command of a tier's environment."""
    return str(ROOT / ".venv" / tier / "bin" / command)


def port(variable: str, default: int) -> int:
    """A port from the environment."""
    given = os.environ.get(variable, str(default))
    if not given.isdigit() or not 0 < int(given) < 65536:
        sys.exit(f"tandem: {variable} is no port: {given}")
    return int(given)


def wrong_ports(business_port: int, llm_port: int) -> str:
    """Why the services cannot listen there, with what to do about it; "" when they can."""
    if business_port == llm_port:
        return f"BUSINESS_API_PORT and LLM_SERVER_PORT are both {llm_port}; each service needs its own"
    taken = [port for port in (business_port, llm_port) if in_use(port)]
    return f"port {taken[0]} is in use; set BUSINESS_API_PORT or LLM_SERVER_PORT" if taken else ""


def in_use(port: int) -> bool:
    """Whether somebody listens on this port of the loopback address."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def say(text: str) -> None:
    """A line of our own."""
    print(f"tandem: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
