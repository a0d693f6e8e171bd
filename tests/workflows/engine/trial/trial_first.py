"""Write a file for the last step."""

from __future__ import annotations

from aspen.workflows.steps import Workspace


def run(workspace: Workspace) -> None:
    """Write the file."""
    (workspace.out / "first.txt").write_text("first")
