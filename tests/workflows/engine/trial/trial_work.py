"""Sum the numbers, for as long as ``TRIAL_SECONDS`` says, with a child process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from aspen.workflows.steps import Workspace

_SUM = """
import sys, time
total = sum(map(int, open(sys.argv[1]).read().split()))
time.sleep(float(sys.argv[2]))
print(total)
"""


def run(workspace: Workspace) -> None:
    """Write the sum."""
    numbers = workspace.of("trial-prepare") / "numbers.txt"
    seconds = os.environ.get("TRIAL_SECONDS", "0")
    words = [sys.executable, "-I", "-S", "-c", _SUM, str(numbers), seconds]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    (workspace.out / "sums.txt").write_text(found.stdout)
    if trace := os.environ.get("TRIAL_TRACE"):
        with Path(trace).open("a") as file:
            file.write(f"{workspace.folder.name}\n")
