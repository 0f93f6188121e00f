"""The embedded engine: llama.cpp's own HTTP server inside this process, for machines without a GPU."""

import os
import signal
from collections.abc import Callable
from typing import Any

from llm_server.errors import CannotServe, EngineMissing
from llm_server.ports import require_free
from llm_server.registry import Model, Registry, require_approved, verify
from llm_server.relay import Relay
from llm_server.settings import Settings, read_settings

HTTP_THREADS = 128
"""Each open answer holds one; the business tier's queue must not fill them all, or /health would wait too."""
STOPPING = {signal.SIGINT, signal.SIGTERM}


class Embedded:
    """A running llama.cpp server. `url` has no path. It runs until `close()`, or until the process ends."""

    def __init__(self, model: Model, settings: Settings) -> None:
        """Load the model and listen. Raises EngineMissing, PortTaken, CannotServe."""
        require_free(settings.host, settings.port)
        # Read once, when the OpenMP library loads: threads that spin while they wait starve a small machine.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        try:
            import xllamacpp
        except ImportError as exc:
            raise EngineMissing(
                "the embedded engine is not installed here: it needs requirements/llm.txt"
            ) from exc
        try:
            self._server = xllamacpp.Server(_parameters(xllamacpp.CommonParams(), model, settings))
        except RuntimeError as exc:
            raise CannotServe(f"llama.cpp could not load {model.name}; its own log says why") from exc
        self.url: str = self._server.listening_address

    def close(self) -> None:
        """Stop: running answers are cut off."""
        self._server = None


def _parameters(parameters: Any, model: Model, settings: Settings) -> Any:
    """llama.cpp's parameters: every answer has its own slot of `max_model_len` tokens."""
    (name,) = model.files
    parameters.model.path = str(model.folder(settings.var) / name)
    parameters.model_alias = {model.asked_for}
    parameters.hostnames = [settings.host]
    parameters.port = settings.port
    parameters.api_keys = [settings.api_key] if settings.api_key else []
    parameters.n_parallel = model.max_num_seqs
    parameters.n_ctx = model.max_num_seqs * model.max_model_len
    parameters.cpuparams.n_threads = settings.threads
    parameters.cpuparams_batch.n_threads = settings.threads
    parameters.n_threads_http = HTTP_THREADS
    parameters.endpoint_metrics = True
    parameters.endpoint_slots = False  # shows other callers' prompts
    parameters.cors_origins = ""  # pages of other origins have no business here
    parameters.cors_credentials = False
    parameters.ui = False
    parameters.offline = True
    parameters.fit_params = False
    parameters.cache_ram_mib = 0
    parameters.verbosity = 1
    return parameters


def serve(model: Model, settings: Settings, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called with the address once requests are answered."""
    # Blocked before the engine's threads start, which inherit it: the signal waits for sigwait below.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    server = Embedded(model, settings)
    ready(server.url)
    signal.sigwait(STOPPING)
    for number in STOPPING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    server.close()


def app() -> Relay:
    """The embedded server as an ASGI app, set by `LLM_SERVER_*`: the LLM tier inside another process.

    Loads the model, which takes about a second. Raises LlmServerError.
    """
    settings = read_settings(os.environ, engine="llama.cpp", host="127.0.0.1", port=0)
    model = Registry.load(settings.registry).find(settings.model, settings.engine)
    require_approved(model)
    verify(model, settings.var)
    return Relay(Embedded(model, settings))
