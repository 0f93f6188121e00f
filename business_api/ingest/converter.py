"""A child process that turns HTML, PDF and DOCX files into text, one after the other.

It runs apart because converters hang, crash and eat memory on broken files: the parent stops it and goes
on. It may not use the network. Spoken over standard input and output: a line of JSON with `path` and
`kind` comes in; a line with a length, then that many bytes of JSON go out: `text` and `title`, or `failed`
with a reason. Run as a script, it imports nothing of ours.
"""

import json
import os
import resource
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

MEMORY = 4 * 1024**3
"""Bytes of address space that a conversion may take."""

CHARACTERS = 20_000_000
"""Longest text that a conversion may bring."""

_REFUSED_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "subprocess.Popen", "os.system")


def _no_way_out(event: str, _: tuple[Any, ...]) -> None:
    if event in _REFUSED_EVENTS:
        raise PermissionError(f"{event} is not allowed while converting")


def _convert(path: Path, kind: str) -> dict[str, str | None]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime comes with the converter
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter, HtmlConverter, PdfConverter

    if kind == "pdf" and b"%PDF-" not in path.open("rb").read(1024):
        return {"failed": "not a PDF, whatever its name says"}
    if kind == "docx" and not zipfile.is_zipfile(path):
        return {"failed": "not a DOCX, whatever its name says"}
    converters: dict[str, Any] = {"html": HtmlConverter, "pdf": PdfConverter, "docx": DocxConverter}
    with path.open("rb") as file:
        converted = converters[kind]().convert(file, StreamInfo(extension=f".{kind}"))
    if len(converted.markdown) > CHARACTERS:
        return {"failed": f"it holds more than {CHARACTERS:,} characters"}
    # lone surrogates cannot be stored: pairs are joined, the rest replaced
    text = converted.markdown.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return {"text": text, "title": str(converted.title).strip() if converted.title else None}


def _reason(exc: BaseException, kind: str) -> str:
    names = set()
    cause: BaseException | None = exc
    while cause is not None:
        names |= {type(cause).__name__, *(type(part).__name__ for part in cause.args)}
        cause = cause.__cause__ or cause.__context__
    if any("Password" in name or "Encrypt" in name for name in names):
        return f"the {kind.upper()} is encrypted"
    if "MemoryError" in names:
        return f"the {kind.upper()} takes too much memory"
    return f"the {kind.upper()} is corrupt"


def main() -> None:
    """Answer lines from standard input until it ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.addaudithook(_no_way_out)
    warnings.simplefilter("ignore")
    # answers go to a copy: whatever a library prints cannot get between them
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = _convert(Path(asked["path"]), asked["kind"])
        except Exception as exc:  # noqa: BLE001 - whatever a broken file breaks is that file's failure
            answer = {"failed": _reason(exc, asked["kind"])}
        encoded = json.dumps(answer).encode()
        answers.write(b"%d\n%b" % (len(encoded), encoded))
        answers.flush()


if __name__ == "__main__":
    main()
