"""An LLM server that costs next to nothing, so that it is never what a benchmark measures.

Speaks as much of vLLM's OpenAI API as a load needs, straight on asyncio's transport. How much it says, and
how fast, is told by `PUT /pace` with {"deltas": 16, "gap_ms": 20, "ttft_ms": 0}; it holds for requests that
come after it.
"""

import asyncio
import re
import sys
from typing import cast

import msgspec

MODEL = "fast"
STREAMED = re.compile(rb'"stream"\s*:\s*true')
COUNTED = re.compile(rb'"include_usage"\s*:\s*true')
LENGTH = re.compile(rb"(?i)\r\ncontent-length:\s*(\d+)")
WORDS = ("The", " port", " is", " given", " by", " a", " setting", " of", " the", " server", ".")

HEAD = (
    '{"id":"chatcmpl-7f0f0c6e9d5a4b1c8e2d3f4a5b6c7d8e","object":"chat.completion.chunk","created":1700000000,'
    '"model":"fast","system_fingerprint":"fast-llm","choices":'
)


class Pace(msgspec.Struct, frozen=True):
    """Deltas with content in an answer, milliseconds between two of them, and before the first."""

    deltas: int = 16
    gap_ms: float = 0.0
    ttft_ms: float = 0.0


def said(deltas: int) -> str:
    """The text of an answer of so many deltas."""
    return "".join(WORDS[number % len(WORDS)] for number in range(deltas))


def _chunk(frame: str) -> bytes:
    raw = f"data: {frame}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(raw), raw)


def _choice(delta: str, finish: str = "null") -> bytes:
    return _chunk(f'{HEAD}[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{finish}}}]}}')


FIRST = _choice('{"role":"assistant","content":""}')
CONTENT = tuple(_choice(f'{{"content":"{word}"}}') for word in WORDS)
FINISH = _choice("{}", '"stop"')
DONE = _chunk("[DONE]") + b"0\r\n\r\n"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _usage(deltas: int) -> str:
    return f'{{"prompt_tokens":100,"completion_tokens":{deltas},"total_tokens":{100 + deltas}}}'


def _last(deltas: int, counted: bool) -> bytes:
    usage = _chunk(f'{HEAD}[],"usage":{_usage(deltas)}}}') if counted else b""
    return FINISH + usage + DONE


def _whole(deltas: int) -> bytes:
    message = f'{{"role":"assistant","content":"{said(deltas)}"}}'
    choice = f'{{"index":0,"message":{message},"logprobs":null,"finish_reason":"stop"}}'
    head = HEAD.replace("chat.completion.chunk", "chat.completion")
    return _json(f'{head}[{choice}],"usage":{_usage(deltas)}}}')


def _json(body: str, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return (head + body).encode()


class FastLlm:
    """What all connections share: the pace, the streams that are running, and counts for /metrics."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.running = 0
        self.finished = 0
        self._wholes: dict[int, bytes] = {}

    def whole(self) -> bytes:
        """The JSON answer at the present pace; made once for each length."""
        deltas = self.pace.deltas
        if deltas not in self._wholes:
            self._wholes[deltas] = _whole(deltas)
        return self._wholes[deltas]

    def answer(self, method: bytes, path: bytes, body: bytes) -> bytes:
        """The response to anything but a chat."""
        if path == b"/pace" and method == b"PUT":
            self.pace = msgspec.json.decode(body, type=Pace)
            return _json("{}")
        if path == b"/v1/models":
            return _json(
                f'{{"object":"list","data":[{{"id":"{MODEL}","object":"model","owned_by":"fast"}}]}}'
            )
        if path == b"/metrics":
            name = "vllm:num_requests_running"
            return _json(f'{name}{{model_name="{MODEL}"}} {self.running}.0\n')
        return _json("{}", "200 OK" if path == b"/health" else "404 Not Found")


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request at a time."""

    def __init__(self, llm: FastLlm) -> None:
        self._llm = llm
        self._unread = b""
        self._timer: asyncio.TimerHandle | None = None
        self._streaming = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer as soon as a request is complete."""
        self._unread += data
        end = self._unread.find(b"\r\n\r\n")
        if end < 0:
            return
        found = LENGTH.search(self._unread, 0, end + 2)
        stop = end + 4 + (int(found[1]) if found else 0)
        if len(self._unread) < stop:
            return
        line, body = self._unread[: self._unread.find(b"\r\n")], self._unread[end + 4 : stop]
        self._unread = self._unread[stop:]
        method, path, _ = line.split(b" ", 2)
        if path == b"/v1/chat/completions":
            self._chat(body)
        else:
            self._transport.write(self._llm.answer(method, path, body))

    def _chat(self, body: bytes) -> None:
        pace = self._llm.pace
        if not STREAMED.search(body):
            self._llm.finished += 1
            self._transport.write(self._llm.whole())
            return
        self._started(True)
        frames = _frames(pace.deltas, COUNTED.search(body) is not None)
        if pace.gap_ms or pace.ttft_ms:
            self._transport.write(STREAM_HEAD)
            self._due = asyncio.get_running_loop().time() + pace.ttft_ms / 1000
            self._timer = asyncio.get_running_loop().call_at(
                self._due, self._send, frames[::-1], pace.gap_ms / 1000
            )
        else:
            self._transport.write(STREAM_HEAD + b"".join(frames))
            self._started(False)

    def _send(self, frames: list[bytes], gap: float) -> None:
        self._transport.write(frames.pop())
        if not frames:
            self._started(False)
            return
        self._due += gap
        self._timer = asyncio.get_running_loop().call_at(self._due, self._send, frames, gap)

    def _started(self, running: bool) -> None:
        self._streaming = running
        self._llm.running += 1 if running else -1
        self._llm.finished += 0 if running else 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop saying anything to a caller that is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if self._streaming:
            self._started(False)


def _frames(deltas: int, counted: bool) -> list[bytes]:
    contents = [CONTENT[number % len(CONTENT)] for number in range(1, deltas)]
    return [FIRST + CONTENT[0], *contents, _last(deltas, counted)]


async def serve(port: int) -> None:
    """Serve for ever; prints the port that was taken."""
    llm = FastLlm()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(llm), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
