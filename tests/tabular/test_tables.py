from __future__ import annotations

import csv
import io
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aspencli.errors import BadInputError
from aspencli.tabular.reading import open_table
from aspencli.tabular.table import Fault

Record = tuple[int, list[str]]

# Many control characters would make a file binary.
CELLS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\t\r\n\x1b"),
    max_size=6,
)
ROWS = st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=8)


def read(path: Path, encoding: str | None = None) -> tuple[list[Record], list[Fault]]:
    faults: list[Fault] = []
    with open_table(str(path), encoding=encoding) as source:
        return list(source.records(faults.append)), faults


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables") / "table.csv"


@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_csv_writer_output_is_read_back_exactly(
    rows: list[list[str]], delimiter: str, end: str, encoding: str, file: Path
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    lines = 1
    expected = []
    for row in [["a", "b"], *rows]:
        if row != ["a", "b"] and any(cell.strip() for cell in row):
            expected.append((lines, row))
        before = text.tell()
        writer.writerow(row)
        written = text.getvalue()[before:]
        lines += written.count("\n") + written.replace("\r\n", "").count("\r")
    file.write_bytes(text.getvalue().encode(encoding))
    expected = [(line, row) for line, row in expected if row != ["a", "b"]]
    records, faults = read(file)
    assert ([record for record in records if record[1] != ["a", "b"]], faults) == (expected, [])


@given(
    lines=st.lists(st.text("aé日🧬,", max_size=5), min_size=1, max_size=30),
    bad=st.sets(st.integers(0, 29), max_size=5),
    padding=st.sampled_from([0, 60_000]),
)
def test_every_line_with_invalid_utf_8_is_reported_with_offset(
    lines: list[str], bad: set[int], padding: int, file: Path
) -> None:
    content, expected = b"a,b\n", []
    for number, line in enumerate(lines):
        content += b"x" * (padding if number == 0 else 0) + line.encode()
        if number in bad:
            place = f"byte 0xFF at offset {len(content):,} is not valid UTF-8"
            expected.append(Fault(number + 2, "", place))
            content += b"\xff"
        content += b"\n"
    file.write_bytes(content)
    assert read(file)[1] == expected


@given(head=st.binary(max_size=300), rest=st.binary(max_size=300))
def test_arbitrary_bytes_never_cause_unexpected_errors(
    head: bytes, rest: bytes, file: Path
) -> None:
    file.write_bytes(head + b'a,b\n"' + rest)
    try:
        records, faults = read(file)
    except BadInputError:
        return
    lines = rest.count(b"\n") + head.count(b"\n") + rest.count(b"\r") + head.count(b"\r") + 2
    assert all(1 <= line <= lines for line, _record in records)
    assert all(1 <= fault.line <= lines for fault in faults)


def test_several_invalid_bytes_in_line_are_counted(file: Path) -> None:
    file.write_bytes(b"a,b\n\xe9\xe8,\xff\n")
    assert read(file)[1] == [Fault(2, "", "byte 0xE9 at offset 4 is not valid UTF-8 (and 2 more)")]


def test_unclosed_quotes_hide_no_other_faults(file: Path) -> None:
    """Each odd line opens a quote that is never closed; each even line is valid."""
    count = 200
    file.write_text("a,b\n" + 'x,"y\nx,y\n' * count)
    records, faults = read(file)
    assert [fault.line for fault in faults] == list(range(2, 2 * count + 2, 2))
    assert [line for line, _record in records] == list(range(3, 2 * count + 2, 2))


def test_unclosed_quote_in_long_file_affects_only_its_line(file: Path) -> None:
    rows = "".join(f"{number},{'z' * 90}\n" for number in range(30_000))
    file.write_text(f'a,b\n"x,y\n{rows}')
    records, faults = read(file)
    assert faults == [Fault(2, "", "a quote opened on this line is never closed")]
    assert records == [(n + 3, [str(n), "z" * 90]) for n in range(30_000)]


def test_invalid_bytes_in_other_encoding_are_reported_with_line(file: Path) -> None:
    file.write_bytes("a,b\nx,é\n".encode("cp1252") + b"x,\x81\n")
    records, faults = read(file, encoding="cp1252")
    assert records[0] == (2, ["x", "é"])
    assert faults == [Fault(3, "", "contains bytes that are not valid CP1252")]


def test_truncated_utf_16_is_reported_on_last_line(file: Path) -> None:
    file.write_bytes("a,b\nx,y\n".encode("utf-16") + b"\0")
    assert [fault.line for fault in read(file)[1]] == [3]


@pytest.mark.parametrize(
    ("header", "delimiter"),
    [("a,b", ","), ("a;b", ";"), ('"a;c",b', ","), ('"a,c"|b', "|"), ("a", ",")],
)
def test_delimiter_is_found_outside_quotes(header: str, delimiter: str, file: Path) -> None:
    file.write_text(f"\n{header}\n")
    with open_table(str(file)) as source:
        assert source.delimiter == delimiter


def test_random_bytes_are_refused_as_binary_or_invalid_utf_8(file: Path) -> None:
    for seed in range(50):
        file.write_bytes(random.Random(seed).randbytes(4_096))
        with pytest.raises(BadInputError, match=r"is binary, not text|is not UTF-8"):
            read(file)
