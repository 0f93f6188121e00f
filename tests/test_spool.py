"""The spool: what was appended is passed on, whole and in order, or counted."""

import resource
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from business_api.sink.frames import frame, read_frames
from business_api.sink.spool import Drop, Spool

BODIES = st.lists(st.text(max_size=40).map(str.encode), max_size=8)


def a_spool(folder: Path, *, segment_bytes: int = 1 << 16, limit_bytes: int = 1 << 20) -> Spool:
    return Spool(folder, segment_bytes=segment_bytes, limit_bytes=limit_bytes)


def everything(spool: Spool) -> list[bytes]:
    """All bodies that wait, passed on."""
    bodies = []
    for stretch in spool.unread():
        reading = spool.read(stretch)
        bodies += reading.bodies
        spool.passed(stretch, reading, len(reading.bodies))
    return bodies


def test_a_living_process_keeps_its_segments_and_a_dead_one_loses_them(tmp_path: Path) -> None:
    living = a_spool(tmp_path)
    living.append(b"mine")
    other = a_spool(tmp_path)
    assert other.unread() == []
    living.close()
    heir = a_spool(tmp_path)
    assert everything(heir) == [b"mine"]
    assert heir.counts().replayed == 1
    for spool in (other, heir):
        spool.close()
    assert not list(tmp_path.iterdir())


def test_segments_follow_each_other_and_vanish_when_they_are_drained(tmp_path: Path) -> None:
    spool = a_spool(tmp_path, segment_bytes=300)
    bodies = [f"{number}".encode() * 50 for number in range(20)]
    for body in bodies:
        assert spool.append(body) is None
    assert len(list(tmp_path.glob("*.segment"))) > 5
    assert everything(spool) == bodies
    assert len(list(tmp_path.glob("*.segment"))) == 1
    spool.close()
    assert not list(tmp_path.iterdir())


def test_it_knows_how_much_it_takes_on_disk(tmp_path: Path) -> None:
    def told_and_there(spool: Spool) -> tuple[int, int]:
        return spool.counts().spool_bytes, sum(one.stat().st_size for one in tmp_path.glob("*.segment"))

    for left_behind in (0, 20):
        spool = a_spool(tmp_path, segment_bytes=300)
        told, there = told_and_there(spool)
        assert told == there
        assert bool(told) is bool(left_behind)
        for _ in range(20):
            spool.append(b"x" * 100)
        told, there = told_and_there(spool)
        assert told == there > 2000
        if left_behind:
            everything(spool)
            told, there = told_and_there(spool)
            assert told == there < 300
        spool.close()


def test_a_disk_that_fills_up_in_the_middle_of_a_write_leaves_no_half_record(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (10_000, hard)
    )  # the kernel then writes a part, like a full disk
    try:
        reasons = [spool.append(b"x" * 3000) for _ in range(5)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert reasons == [None, None, None, Drop.FULL, Drop.FULL]
    assert spool.append(b"after") is None
    assert everything(spool) == [b"x" * 3000] * 3 + [b"after"]
    assert spool.counts().dropped == 2
    spool.close()


def test_a_spool_that_cannot_be_written_is_counted_and_recovers(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool = a_spool(folder)
    folder.rename(tmp_path / "gone")
    assert spool.append(b"lost") == Drop.WRITE_ERROR
    (tmp_path / "gone").rename(folder)
    assert spool.append(b"kept") is None
    assert everything(spool) == [b"kept"]
    counts = spool.counts()
    assert (counts.made, counts.stored, counts.dropped) == (2, 1, 1)
    spool.close()


def test_a_damaged_segment_of_a_dead_process_costs_only_what_was_damaged(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    for number in range(5):
        spool.append(f"body {number}".encode())
    spool.close()
    (segment,) = tmp_path.glob("*.segment")
    written = bytearray(segment.read_bytes())
    written[written.index(b"body 2")] ^= 1
    segment.write_bytes(written + frame(b"torn off")[:-3])
    heir = a_spool(tmp_path)
    assert everything(heir) == [b"body 0", b"body 1", b"body 3", b"body 4"]
    counts = heir.counts()
    assert (counts.replayed, counts.damaged, counts.torn) == (4, 1, 1)
    heir.close()


def test_a_segment_that_somebody_deleted_is_counted(tmp_path: Path) -> None:
    spool = a_spool(tmp_path)
    spool.append(b"gone")
    (segment,) = tmp_path.glob("*.segment")
    segment.unlink()
    assert everything(spool) == []
    assert spool.counts().reasons == {Drop.DAMAGED: 1}
    spool.close()


@given(bodies=BODIES, cut=st.integers(min_value=0))
def test_a_cut_at_any_byte_leaves_the_records_before_it(bodies: list[bytes], cut: int) -> None:
    frames = [frame(body) for body in bodies]
    written = b"".join(frames)
    cut %= len(written) + 1
    whole = [number for number in range(len(frames) + 1) if len(b"".join(frames[:number])) <= cut][-1]
    reading = read_frames(written[:cut])
    assert reading.bodies == bodies[:whole]
    assert reading.damaged == 0
    assert reading.torn == (cut > len(b"".join(frames[:whole])))


@given(bodies=BODIES.filter(bool), at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_costs_one_record(bodies: list[bytes], at: int, flip: int) -> None:
    written = bytearray(b"".join(frame(body) for body in bodies))
    at %= len(written)
    written[at] ^= flip
    hit = next(n for n in range(len(bodies)) if at < len(b"".join(frame(one) for one in bodies[: n + 1])))
    assert read_frames(bytes(written)).bodies == bodies[:hit] + bodies[hit + 1 :]


@given(st.binary(max_size=200))
def test_noise_is_no_record(noise: bytes) -> None:
    assert read_frames(noise + frame(b"after")).bodies[-1:] == [b"after"]
