"""The campaign of broken settings runs every command."""

from __future__ import annotations

from pathlib import Path

from aspencli.cli.main import command
from benchmarks.broken_settings.commands import FEW, LEFT_OUT, command_lines
from docs.reference import walk


def test_every_command_is_run(tmp_path: Path) -> None:
    root = command()
    context = root.context_class(root, info_name="aspencli")
    documented = {
        " ".join(path)
        for path, found in walk(root, context, ())
        if path and not hasattr(found, "list_commands")
    }
    run = set(command_lines(tmp_path))
    assert documented - run - LEFT_OUT == {"help", "version"}
    assert run >= FEW
