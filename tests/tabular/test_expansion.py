"""Small files that expand enormously, in every format they can have."""

from __future__ import annotations

import gzip
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from aspencli.errors import BadInputError
from aspencli.tabular import SIZE_OPTION, SIZE_VARIABLE, source
from aspencli.tabular.fasta import read_fasta
from aspencli.tabular.reading import open_table
from aspencli.tabular.source import open_bytes
from tests.conftest import CliRunner

MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def no_limit_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_given", [])


def packed(path: Path, head: bytes, line: bytes, megabytes: int) -> Path:
    """Write a compressed file that repeats one line."""
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(head)
        piece = line * (MEGABYTE // len(line))
        for _ in range(megabytes):
            file.write(piece)
    return path


def mapping(folder: Path, megabytes: int = 40) -> Path:
    return packed(
        folder / "ids.csv.gz", b"private_identifier,public_identifier\n", b"a,b\n", megabytes
    )


def fasta(folder: Path) -> Path:
    return packed(folder / "all.fasta.gz", b">a\n", b"ACGT\n", 280)


def workbook(folder: Path) -> Path:
    path = folder / "ids.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            for _ in range(280):
                sheet.write(b"<row/>" * (MEGABYTE // 6))
        archive.writestr("[Content_Types].xml", "<Types/>")
    return path


def read_mapping(path: Path) -> None:
    with open_table(str(path)):
        pytest.fail("the table was opened")


def read_sequences(path: Path) -> None:
    for _genome in read_fasta(path):
        pytest.fail("a sequence was read before the file was refused")


@pytest.mark.parametrize(
    ("make", "read"),
    [(mapping, read_mapping), (fasta, read_sequences), (workbook, read_mapping)],
    ids=["mapping", "fasta", "workbook"],
)
def test_file_that_expands_too_much_is_refused_before_any_row(
    tmp_path: Path, make: Callable[[Path], Path], read: Callable[[Path], None]
) -> None:
    path = make(tmp_path)
    assert path.stat().st_size < MEGABYTE
    with pytest.raises(BadInputError, match=r"expands from .* to more than") as refused:
        read(path)
    assert SIZE_OPTION in (refused.value.hint or "")


def test_expansion_after_incompressible_start_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ids.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(os.urandom(2 * MEGABYTE))  # more than is checked before reading
        for _ in range(300):
            file.write(bytes(MEGABYTE))
    read: list[int] = []
    with (
        open_bytes(str(path)) as opened,
        pytest.raises(BadInputError, match=r"expands from .* to more than"),
    ):
        read.extend(map(len, iter(opened.stream.read1, b"")))
    assert 200 * MEGABYTE < sum(read) < 240 * MEGABYTE  # 100 times its 2.1 MB


def test_highly_compressed_file_below_limit_is_read(tmp_path: Path) -> None:
    path = mapping(tmp_path, 20)
    with open_bytes(str(path)) as opened:
        read = sum(map(len, iter(opened.stream.read1, b"")))
    assert read > 20 * MEGABYTE
    assert read > 500 * path.stat().st_size


@pytest.mark.parametrize("way", ["option", "variable"])
def test_expansion_limit_can_be_set_by_option_or_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = mapping(tmp_path)

    def allow(text: str) -> None:
        if way == "option":
            source.allow_expansion(text)
        else:
            monkeypatch.setenv(SIZE_VARIABLE, text)

    allow("1G")
    with open_bytes(str(path)) as opened:
        assert sum(map(len, iter(opened.stream.read1, b""))) > 40 * MEGABYTE - 4096
    allow("33M")
    with pytest.raises(BadInputError, match="34,603,008"), open_bytes(str(path)) as opened:
        opened.stream.read1()


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5G", "G", "1P", "9" * 20])
def test_invalid_max_expanded_size_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="Invalid value for --max-expanded-size"):
        source.allow_expansion(text)


@pytest.mark.parametrize(("text", "size"), [("7", 7), ("2k", 2048), ("3 MiB", 3 << 20)])
def test_max_expanded_size_accepts_units(text: str, size: int) -> None:
    source.allow_expansion(text)
    assert source._given == [size]


def test_command_refuses_expanding_file_and_names_option(
    tmp_path: Path, run_cli: CliRunner
) -> None:
    path = mapping(tmp_path)
    words = ("samples", "update-public-ids", "--group-id", "1", "--dry-run")
    name = "--private-to-public-id-mapping"
    done = run_cli(*words, name, str(path))
    assert done.code == 2
    assert "ids.csv.gz expands from " in done.err
    assert " to more than 33,554,432 bytes" in done.err
    assert "--max-expanded-size 1G" in done.err
    wrong = run_cli(*words, name, str(path), "--max-expanded-size", "lots")
    assert wrong.code == 2
    assert "Invalid value for --max-expanded-size: 'lots'" in wrong.err


def test_truncated_gzip_file_is_reported_as_truncated(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" * 1000)[:-4])
    with (
        pytest.raises(BadInputError, match="truncated"),
        open_bytes(str(path)) as opened,
    ):
        io.BufferedReader(opened.stream).read()
