"""Sequences in FASTA files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path


def read(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the name and the sequence of each record; a name is the whole line."""
    name: str | None = None
    parts: list[str] = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            text = line.strip()
            if text.startswith(">"):
                if name is not None:
                    yield name, "".join(parts)
                name, parts = text[1:].strip(), []
            elif text and name is not None:
                parts.append(text)
    if name is not None:
        yield name, "".join(parts)


def write(path: Path, records: Iterable[tuple[str, str]]) -> int:
    """Write records, one line for each sequence; return their number."""
    number = 0
    with path.open("w", encoding="utf-8") as file:
        for name, sequence in records:
            file.write(f">{name}\n{sequence}\n")
            number += 1
    return number
