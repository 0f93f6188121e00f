"""The table of a benchmark: ours beside direct and beside peers."""

from rich.table import Table

from loadtests.figures import Row, short


def compared(rows: list[Row]) -> Table:
    """Median and spread of ours, the figure of the LLM tier alone and of each peer, what was aimed at."""
    peers = list(dict.fromkeys(peer for row in rows for peer in row.peers))
    drawn = Table(title="bench", title_justify="left", caption_justify="left")
    drawn.add_column("figure", no_wrap=True)
    for heading in ("ours", "low-high", "direct", *peers, "floor", "aim"):
        drawn.add_column(heading, justify="right", no_wrap=heading not in peers)
    drawn.add_column("unit")
    drawn.add_column("reached")
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    for row in rows:
        others = (row.baseline, *(row.peers.get(peer) for peer in peers), row.floor, row.aim)
        spread = f"{short(row.low)}-{short(row.high)}"
        mark = f" ({notes.index(row.note) + 1})" if row.note else ""
        verdict = "[yellow]void[/]" if "VOID" in row.note else row.verdict
        drawn.add_row(row.name + mark, short(row.value), spread, *map(short, others), row.unit, verdict)
    drawn.caption = "\n".join(f"({number}) {note}" for number, note in enumerate(notes, 1))
    return drawn
