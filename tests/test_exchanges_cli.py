"""`business-api exchanges` in a terminal of the usual width."""

from pathlib import Path

from business_api.settings import Settings
from business_api.sink import Sink
from tests.exchanges import exchange
from tests.programs import run

ID = "01a20760f973b89fa55e1f4fb5d0c2e7"


def test_at_80_columns_the_id_can_be_read_and_given_back(tmp_path: Path) -> None:
    sink = Sink.open(Settings(var=tmp_path))
    sink.record(exchange(ID, question="Which port does the LLM server listen on, and who says so? " * 3))
    sink.close()
    listed = run("exchanges", var=tmp_path, COLUMNS="80").stdout
    (row,) = [line for line in listed.splitlines() if ID in line]
    assert "answered" in row
    assert len(row.rstrip()) <= 80
    assert f'"{ID}"' in run("exchanges", ID, var=tmp_path).stdout
