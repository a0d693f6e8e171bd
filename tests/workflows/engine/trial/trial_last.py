"""Read the file of the first step."""

from __future__ import annotations

from aspen.workflows.steps import Workspace


def run(workspace: Workspace) -> None:
    """Copy the file."""
    text = (workspace.of("trial-first") / "first.txt").read_text()
    (workspace.out / "last.txt").write_text(text)
