"""Start-up time of the program, compared with Python and a one-command Typer app."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.speed.measuring import Comparison, compare, run

_ONE_COMMAND = """
import typer

app = typer.Typer()


@app.command()
def show(name: str = "world") -> None:
    typer.echo(name)


app()
"""
_ROUNDS = 21


def measure() -> Iterator[Comparison]:
    """Measure ``--version``, ``--help``, and ``config show``."""
    ours = str(Path(sys.executable).with_name("aspencli"))
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder, "one_command.py")
        app.write_text(_ONE_COMMAND)
        typer = [sys.executable, str(app)]
        home = {"ASPEN_HOME": folder}
        yield compare(
            "aspencli --version",
            lambda: run([ours, "--version"]),
            "python -c pass",
            lambda: run([sys.executable, "-c", "pass"]),
            goal=1.5,
            rounds=_ROUNDS,
        )
        yield compare(
            "aspencli --help",
            lambda: run([ours, "--help"]),
            "one-command Typer app --help",
            lambda: run([*typer, "--help"]),
            goal=1.2,
            rounds=_ROUNDS,
        )
        yield compare(
            "aspencli config show",
            lambda: run([ours, "config", "show"], home),
            "one-command Typer app",
            lambda: run(typer),
            goal=1.5,
            rounds=_ROUNDS,
        )
