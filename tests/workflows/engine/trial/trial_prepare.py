"""Write some numbers that depend only on the run."""

from __future__ import annotations

from aspen.workflows.jobs import TreeParameters
from aspen.workflows.steps import Workspace


def run(workspace: Workspace) -> None:
    """Write the numbers."""
    start = workspace.parameters(TreeParameters).run_id
    numbers = [str((start * 7919 + place * 104_729) % 1_000_003) for place in range(1000)]
    (workspace.out / "numbers.txt").write_text("\n".join(numbers))
