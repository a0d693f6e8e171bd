"""Standard streams that are closed, full, or broken: the exit code reflects what was written."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from tests.cli.commands.mapping_lab import SAMPLES, Lab
from tests.conftest import CliResult

_UNPRINTED = "The result could not be printed"


def shell(lab: Lab, words: list[str], redirections: str) -> CliResult:
    command = shlex.join([sys.executable, "-m", "aspencli", *words])
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} {redirections}"],
        env=lab.environment(words),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return CliResult(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("redirections", "says"),
    [
        (">&-", _UNPRINTED),
        (">/dev/full", _UNPRINTED),
        ("| true", ""),
        ("2>&-", ""),
        ("2>/dev/full", ""),
        ("<&- >&- 2>&-", ""),
    ],
)
def test_written_rename_exits_0_if_streams_are_closed_or_full(
    lab: Lab, redirections: str, says: str
) -> None:
    group = lab.group()
    mapping = lab.folder / "closed.csv"
    mapping.write_text("private_identifier,public_identifier\nL-1,Closed\n")
    words = ["samples", "update-public-ids", "--group-id", str(group), "-f", str(mapping), "--yes"]
    ended = shell(lab, words, redirections)
    assert ended.code == 0, ended.err
    assert lab.names(group) == {**SAMPLES, "L-1": "Closed"}
    assert says in ended.err
    assert "bug" not in ended.err


@pytest.mark.parametrize(
    ("redirections", "code", "says"),
    [
        (">&-", 1, "standard output is closed"),
        (">/dev/full", 1, "No space left"),
        ("| true", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
    ],
)
@pytest.mark.parametrize("words", [["pathogens", "list"], ["--version"], ["--help"]])
def test_read_command_exit_code_reflects_closed_or_full_stream(
    lab: Lab, words: list[str], redirections: str, code: int, says: str
) -> None:
    ended = shell(lab, words, redirections)
    assert (ended.code, says in ended.err) == (code, True), ended.err
    assert "bug" not in ended.err
    assert "Traceback" not in ended.err
