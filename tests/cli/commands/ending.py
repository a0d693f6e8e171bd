"""The result of a command."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cli.schema_check import require_valid


@dataclass(frozen=True)
class Ended:
    """The result of a command: its exit code, and its output on each stream."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """Return the error of a run with JSON output, which is the last line."""
        return json.loads(self.err.splitlines()[-1])["error"]

    @property
    def tsv(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out), dialect="excel-tab"))

    @property
    def ids(self) -> list[int]:
        return [int(row["id"]) for row in self.tsv]


def ended(arguments: Sequence[str], code: int, capsys: pytest.CaptureFixture[str]) -> Ended:
    """Return the result of a command in this process, with its JSON checked by its schema."""
    found = Ended(code, *capsys.readouterr())
    require_valid(arguments, found.out)
    return found
