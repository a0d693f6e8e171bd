"""Hang, and ignore SIGTERM."""

from __future__ import annotations

import signal
import time

from aspen.workflows.steps import Workspace


def run(workspace: Workspace) -> None:
    """Hang."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
