"""Random bytes and damaged tables, given to the reader of mappings."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from pathlib import Path
from random import Random

from hypothesis import strategies as st

from aspencli.changes.cells import read_mapping
from aspencli.errors import BadInputError
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault
from aspencli.text import LONGEST

SLOWEST_S = 10.0  # for a few kilobytes; a hang takes longer
LARGEST_MB = 64  # of memory, for a file of any size: the longest line, and its text
_HEADER = b"private_identifier,public_identifier"
_ENDS = [b"\n", b"\r\n", b"\r"]
_CELLS = [
    b"A-1",
    b'"q,x"',
    b'"a\nb"',
    b'"',
    b"",
    b"\xff",
    b"\x00",
    b"\xef\xbf\xbd",
    b"=1",
    b"x" * 200,
]

BYTES = st.binary(max_size=600)
_ROW = st.lists(st.sampled_from(_CELLS), max_size=4).map(b",".join)
_TABLE = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf"]), st.lists(_ROW, max_size=12), st.sampled_from(_ENDS)
).map(lambda made: made[0] + made[2].join([_HEADER, *made[1]]))
_CHANGES = st.lists(
    st.tuples(st.floats(0, 1), st.binary(max_size=3), st.integers(0, 4)), max_size=4
)


def _damaged(table: bytes, changes: list[tuple[float, bytes, int]]) -> bytes:
    for place, put, taken in changes:
        at = int(place * len(table))
        table = table[:at] + put + table[at + taken :]
    return table


DAMAGED = st.builds(_damaged, _TABLE, _CHANGES)
_RECODED = st.builds(
    lambda table, codec: table.decode("latin-1").encode(codec),
    DAMAGED,
    st.sampled_from(["utf-16", "utf-32", "utf-16-le", "utf-8"]),
)
_PACKED = st.builds(
    lambda table, cut: gzip.compress(table)[: cut or None], DAMAGED, st.integers(0, 90)
)
_ARCHIVE = BYTES.map(lambda rest: b"PK\x03\x04" + rest)
FILES = st.one_of(BYTES, DAMAGED, DAMAGED, _RECODED, _PACKED, _ARCHIVE)


def read_whole(path: Path) -> tuple[int, int]:
    """Read a file as a mapping; return the number of good rows and the number of faults.

    Raises:
        AssertionError: It took too long, or accepted something that is not an identifier.
    """
    faults: list[Fault] = []
    rows, began = 0, time.monotonic()
    try:
        with open_table(str(path)) as source:
            for line, private, (public,), *_rest in read_mapping(source, faults.append):
                rows += 1
                assert line > 1
                assert isinstance(public, str)
                assert 0 < len(private) <= LONGEST
                assert public.isprintable() or not any(map(_is_control, public))
    except BadInputError:
        pass
    assert time.monotonic() - began < SLOWEST_S
    return rows, len(faults)


def _is_control(char: str) -> bool:
    return ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or 0xD800 <= ord(char) < 0xE000


def write_large(path: Path, megabytes: int, chance: Random) -> None:
    """Write a file that repeats one odd piece."""
    alphabet = chance.choice([b'a,"\n', b'"\n,', b"a", b"a,", b'a"', b"\n", bytes(range(256))])
    piece = bytes(chance.choice(alphabet) for _ in range(chance.randrange(1, 400)))
    head = chance.choice([_HEADER + b"\n", b""])
    with path.open("wb") as file:
        file.write(head)
        for _ in range(megabytes):
            file.write((piece * ((1 << 20) // len(piece) + 1))[: 1 << 20])


def peak_of_reading(path: Path) -> float:
    """Return the peak memory of reading a file as a mapping, in MiB, without keeping faults."""
    tracemalloc.start()
    try:
        with open_table(str(path)) as source:
            for _request in read_mapping(source, lambda _fault: None):
                pass
    except BadInputError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / (1 << 20)
