import socket
from pathlib import Path

import pytest

from business_api.ingest.finding import find
from business_api.ingest.reading import Reader, Text, Unreadable
from tests.samples.documents import docx, encrypted_pdf, pdf

HTML = b"""<!doctype html><html><head><title>The title</title><script>bad()</script></head>
<body><h1>Ports</h1><p>The port is <b>8001</b>.</p><img src="http://127.0.0.1:%d/x.png"></body></html>"""


async def read(tmp_path: Path, name: str, content: bytes, **limits: float) -> Text:
    path = tmp_path / name
    path.write_bytes(content)
    [file] = find([path]).documents
    async with Reader(**limits) as reader:  # type: ignore[arg-type]
        return await reader.read(file)


async def failure(tmp_path: Path, name: str, content: bytes, **limits: float) -> str:
    with pytest.raises(Unreadable) as failed:
        await read(tmp_path, name, content, **limits)
    return str(failed.value)


async def test_text_is_taken_as_it_is_without_mark_and_with_unix_line_ends(tmp_path: Path) -> None:
    content = "\ufeff# Tïtle\r\n\r\n\tcode  \rend\n\ufeff".encode()
    assert await read(tmp_path, "a.md", content) == Text("# Tïtle\n\n\tcode  \nend\n\ufeff", markdown=True)
    assert (await read(tmp_path, "a.txt", b"x")).markdown is False


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary: it holds NUL bytes"),
        ("utf-16".encode("utf-16"), "binary: it holds NUL bytes"),
        (b"caf\xe9 au lait", "not UTF-8: byte 0xe9 at offset 3"),
        (b"x" * 1001, "larger than 0.000953674 MB"),
    ],
    ids=["png", "utf-16", "latin-1", "large"],
)
async def test_what_is_no_utf8_text_is_reported(tmp_path: Path, content: bytes, reason: str) -> None:
    assert await failure(tmp_path, "a.md", content, max_bytes=1000) == reason


async def test_a_file_that_goes_away_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("x")
    [file] = find([path]).documents
    path.unlink()
    async with Reader() as reader:
        with pytest.raises(Unreadable, match="cannot be read"):
            await reader.read(file)


async def test_html_pdf_and_docx_become_text_and_one_converter_serves_all(tmp_path: Path) -> None:
    samples = {
        "a.html": HTML % 9,
        "b.pdf": pdf("The port is 8001.", "And a second line."),
        "c.docx": docx("Ports", "The port is 8001.", "Lone < & surrogates"),
        "d.htm": b"  \n ",
    }
    for name, content in samples.items():
        (tmp_path / name).write_bytes(content)
    async with Reader() as reader:
        files = find([tmp_path]).documents
        html, portable, word, empty = [await reader.read(file) for file in files]
    assert html.title == "The title"
    assert html.text.startswith("# Ports\n\nThe port is **8001**.")
    assert "bad()" not in html.text
    assert portable.text.split("\n")[:2] == ["The port is 8001.", "And a second line."]
    assert not portable.markdown
    assert word.text.startswith("# Ports\n\nThe port is 8001.")
    assert empty.text == ""


async def test_converting_asks_nothing_of_the_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        await read(tmp_path, "a.html", HTML % server.getsockname()[1])
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.pdf", b"hello, I am no PDF", "not a PDF, whatever its name says"),
        ("a.pdf", b"%PDF-1.4\n" + b"\x00\xff garbage" * 50, "the PDF is corrupt"),
        ("a.pdf", encrypted_pdf(), "the PDF is encrypted"),
        ("a.docx", b"hello", "not a DOCX, whatever its name says"),
        ("a.docx", docx("A", "b")[:-200], "not a DOCX, whatever its name says"),
        ("a.docx", docx("A", "b").replace(b"w:body", b"w:bady"), "the DOCX is corrupt"),
        ("a.html", b"\x00\x01<html>", "binary: it holds NUL bytes"),
    ],
)
async def test_a_broken_file_is_reported_with_its_reason(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    assert await failure(tmp_path, name, content) == reason


async def test_a_conversion_that_hangs_is_stopped_and_the_next_file_is_read(tmp_path: Path) -> None:
    for name, content in {"a.html": HTML % 9, "b.pdf": pdf("The second.")}.items():
        (tmp_path / name).write_bytes(content)
    first, second = find([tmp_path]).documents
    async with Reader(seconds=0.0) as reader:
        with pytest.raises(Unreadable, match="took longer than 0 s"):
            await reader.read(first)
        reader._seconds = 60.0
        assert "The second." in (await reader.read(second)).text


async def test_a_converter_that_dies_costs_one_file(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.html").write_bytes(b"<p>page %d</p>" % number)
    files = find([tmp_path]).documents
    async with Reader() as reader:
        assert (await reader.read(files[0])).text == "page 0"
        assert reader._child
        reader._child.kill()
        with pytest.raises(Unreadable, match="broke the converter"):
            await reader.read(files[1])
        assert (await reader.read(files[2])).text == "page 2"
