"""Programs that are used if they are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

from aspen.workflows.steps import StepError


def installed(name: str) -> bool:
    """Return True if a program is on the PATH."""
    return shutil.which(name) is not None


def run(name: str, *arguments: str) -> None:
    """Run a program; its output goes to the log.

    Raises:
        StepError: It failed.
    """
    done = _process(name, arguments, stdout=sys.stderr.fileno())
    if done.returncode:
        raise StepError(f"{name} failed with exit code {done.returncode}; see the log.")


def version_of(name: str) -> str:
    """Return the version that a program states."""
    stated = _process(name, ["--version"], stdout=subprocess.PIPE).stdout
    found = re.search(r"\d+\.\d[\w.+-]*", stated)
    return found[0] if found else "unknown"


def _process(
    name: str, arguments: tuple[str, ...] | list[str], stdout: int
) -> subprocess.CompletedProcess[str]:
    path = shutil.which(name)
    if path is None:
        raise StepError(f"{name} is not installed.")
    return subprocess.run([path, *arguments], stdout=stdout, text=True, check=False)  # noqa: S603 - fixed names
