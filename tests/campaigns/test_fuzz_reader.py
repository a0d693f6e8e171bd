"""No file makes the reader crash, hang, or run out of memory."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings

from benchmarks.fuzz.reader import FILES, LARGEST_MB, peak_of_reading, read_whole, write_large


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reader") / "ids.csv"


@given(content=FILES)
@settings(max_examples=400, deadline=None)
def test_reader_reads_or_rejects_any_bytes(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    read_whole(file)


@pytest.mark.parametrize("seed", range(4))
def test_reader_memory_is_bounded_for_large_malformed_file(seed: int, file: Path) -> None:
    write_large(file, 1, Random(seed))
    assert peak_of_reading(file) < LARGEST_MB
