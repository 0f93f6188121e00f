"""Looks whether a port is free before a model is loaded for it."""

import socket

from llm_server.errors import InvalidSetting, PortTaken


def require_free(host: str, port: int) -> None:
    """Raises PortTaken when something listens there, InvalidSetting for a host that is not ours."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as trial:
            # As servers do: connections that are only winding down do not hold a port.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except socket.gaierror as exc:
        raise InvalidSetting(f"no host {host!r}; use 127.0.0.1, or 0.0.0.0 for all interfaces") from exc
    except OSError as exc:
        raise PortTaken(
            f"{host}:{port} cannot be used ({exc.strerror}); "
            "stop what runs there, or choose another with --port or LLM_SERVER_PORT"
        ) from exc
