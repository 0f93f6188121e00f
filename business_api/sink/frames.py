"""Frames: how records lie in a segment of the spool, and how a damaged segment is read.

A frame is magic, length, CRC-32, body. The magic begins with a byte that UTF-8 never has, and bodies are
JSON: it stands nowhere else, so behind a damaged frame the next whole one is found again.
"""

import struct
import zlib
from dataclasses import dataclass

MAGIC = b"\xf5TDM"
_HEADER = struct.Struct("<4sII")


@dataclass(frozen=True)
class Reading:
    """The bodies of all whole frames in their order, the damaged places, and whether the end was torn off."""

    bodies: list[bytes]
    damaged: int
    torn: bool


def frame(body: bytes) -> bytes:
    """The bytes to append for one record."""
    return _HEADER.pack(MAGIC, len(body), zlib.crc32(body)) + body


def read_frames(segment: bytes) -> Reading:
    """Read what is whole. A cut at any byte costs only the frame it goes through."""
    bodies: list[bytes] = []
    damaged = at = 0
    while at < len(segment):
        body = _body_at(segment, at)
        if body is not None:
            bodies.append(body)
            at += _HEADER.size + len(body)
            continue
        following = segment.find(MAGIC, at + 1)
        if following < 0 and _is_cut(segment, at):
            return Reading(bodies, damaged, torn=True)
        damaged += 1
        at = following if following >= 0 else len(segment)
    return Reading(bodies, damaged, torn=False)


def _body_at(segment: bytes, at: int) -> bytes | None:
    if len(segment) - at < _HEADER.size:
        return None
    magic, length, checksum = _HEADER.unpack_from(segment, at)
    body = segment[at + _HEADER.size : at + _HEADER.size + length]
    whole = magic == MAGIC and len(body) == length and zlib.crc32(body) == checksum
    return body if whole else None


def _is_cut(segment: bytes, at: int) -> bool:
    """Whether the frame begun here simply ends too early, as after a kill in the middle of a write."""
    if len(segment) - at < _HEADER.size:
        return MAGIC.startswith(segment[at : at + len(MAGIC)])
    magic, length, _ = _HEADER.unpack_from(segment, at)
    return bool(magic == MAGIC and length > len(segment) - at - _HEADER.size)
