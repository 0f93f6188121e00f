"""The page's own modules, run in the browser: Markdown to elements, events from bytes."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.fake_backend import FakeBackend
from tests.fakes import serving

pytestmark = pytest.mark.browser

CODE = '<div class="code"><pre tabindex="0"><code>{}</code></pre></div>'
TABLE = (
    '<div class="table" tabindex="0"><table><thead><tr><th>a</th><th>b</th></tr></thead>'
    "<tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody></table></div>"
)
MARKED = "<p>fact.<u>1</u><u>2</u> more<u>1</u><u>3</u> none [9] <code>[1]</code></p>"
CASES = [
    ("", ""),
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("**bold** and *italic*", "<p><strong>bold</strong> and <em>italic</em></p>"),
    ("__bold__ and _italic_", "<p><strong>bold</strong> and <em>italic</em></p>"),
    ("***both***", "<p><strong><em>both</em></strong></p>"),
    ("**a *b* c**", "<p><strong>a <em>b</em> c</strong></p>"),
    ("*a **b** c*", "<p><em>a <strong>b</strong> c</em></p>"),
    ("2 * 3 * 4 and snake_case_name and **open", "<p>2 * 3 * 4 and snake_case_name and **open</p>"),
    ("`a*b*` and ``c`d``", "<p><code>a*b*</code> and <code>c`d</code></p>"),
    ("fact. [1] more", "<p>fact.<u>1</u> more</p>"),
    ("fact.[1][2] more [1, 3] none [9] `[1]`", MARKED),
    ("\\*plain\\* <b>", "<p>*plain* &lt;b&gt;</p>"),
    ("one  \ntwo", "<p>one  <br>two</p>"),
    ("# A #\n### B", "<h3>A</h3><h5>B</h5>"),
    ("- a\n- b\n  - c\n- d", "<ul><li>a</li><li>b<ul><li>c</li></ul></li><li>d</li></ul>"),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("1. a\n\n2. b", "<ol><li>a</li><li>b</li></ol>"),
    ("1. a\n   ```\n   x\n   ```\n2. b", f"<ol><li>a{CODE.format('x')}</li><li>b</li></ol>"),
    ("text\n- a", "<p>text</p><ul><li>a</li></ul>"),
    ("```py\nx = '<'\n```\nend", CODE.format("x = '&lt;'") + "<p>end</p>"),
    ("```\nnot closed", CODE.format("not closed")),
    ("> a\n> b", "<blockquote><p>a\nb</p></blockquote>"),
    ("---", "<hr>"),
    ("|a|b|\n|-|-|\n|1|**2**|", TABLE),
]
FLOODS = [
    *("*a **b _c " * 4000, "[" * 30000, "`" * 30001, "> " * 10000, "- - " * 8000, "|-" * 15000, "1. " * 9000),
    *("# " + "#" * 30000 + "x", "a|b\n|-|" + " " * 30000 + "x", "![a](" * 6000, "h" * 40000, "***a" * 8000),
    *("**" * 15000 + "a", "*a**b" * 8000, "- a\n" * 5000, "> \n" * 8000, "a_b*c_" * 6000, "[1](" * 9000),
]
SHOW = """async text => {
    const {showMarkdown} = await import("/web/markdown.js");
    const place = document.createElement("div");
    const node = number => Object.assign(document.createElement("u"), {textContent: number});
    const marker = number => number < 9 ? node(number) : null;
    showMarkdown(place, text, marker);
    place.querySelectorAll(".code-head").forEach(head => head.remove());
    return place.innerHTML;
}"""
EVENTS = """async parts => {
    const {serverEvents} = await import("/web/sse.js");
    const stream = new ReadableStream({start(to) {
        parts.forEach(part => to.enqueue(new Uint8Array(part)));
        to.close();
    }});
    const found = [];
    for await (const event of serverEvents(stream)) found.push([event.event, event.data]);
    return found;
}"""
FLOOD = """text => {
    const place = document.createElement("div");
    place.id = "flood";
    document.getElementById("flood")?.remove();
    document.body.append(place);
    import("/web/markdown.js").then(({showMarkdown}) => showMarkdown(place, text));
}"""


@pytest.fixture(scope="module")
def modules(browser: Browser) -> Iterator[Page]:
    """One page for all tests here: they call its modules and leave the page as it is."""
    with serving(FakeBackend().app) as url:
        page = browser.new_page()
        page.goto(url)
        yield page
        page.close()


@pytest.mark.parametrize(("text", "html"), CASES)
def test_markdown_becomes_these_elements(modules: Page, text: str, html: str) -> None:
    assert modules.evaluate(SHOW, text) == html


def test_an_address_becomes_a_link_without_the_full_stop_after_it(modules: Page) -> None:
    html = str(modules.evaluate(SHOW, "See https://a.example/b?c=1. Or [x](mailto:a@b.example)"))
    assert 'href="https://a.example/b?c=1"' in html
    assert html.endswith("</a></p>")
    assert 'href="mailto:a@b.example"' in html


def test_what_has_been_shown_is_not_made_again(modules: Page) -> None:
    same = """async () => {
        const {showMarkdown} = await import("/web/markdown.js");
        const place = document.createElement("div");
        showMarkdown(place, "one\\n\\ntw");
        const first = place.firstChild;
        showMarkdown(place, "one\\n\\ntwo\\n\\nthree");
        return [place.firstChild === first, place.textContent];
    }"""
    assert modules.evaluate(same) == [True, "onetwothree"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_the_bytes_are_cut(modules: Page, size: int) -> None:
    sent = 'event: delta\ndata: {"text": "é🚲"}\n\n: comment\n\ndata: a\r\ndata:b\r\n\r\n'
    sent += "event: answer\ndata: x\n\ndata: cut"
    raw = list(sent.encode())
    parts = [raw[at : at + size] for at in range(0, len(raw), size)]
    assert modules.evaluate(EVENTS, parts) == [
        ["delta", '{"text": "é🚲"}'],
        ["message", "a\nb"],
        ["answer", "x"],
    ]


@pytest.mark.parametrize("flood", FLOODS, ids=range(len(FLOODS)))
def test_no_text_keeps_the_page_busy_for_long(modules: Page, flood: str) -> None:
    modules.evaluate(FLOOD, f"{flood}\n\n# end.")
    expect(modules.locator("#flood")).to_contain_text("end.")
