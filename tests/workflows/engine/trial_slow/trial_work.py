"""The step trial-work, before and after a pause."""

from __future__ import annotations

import time

from aspen.workflows.steps import Workspace
from tests.workflows.engine.trial import trial_work

_PAUSE_S = 0.4


def run(workspace: Workspace) -> None:
    """Take some time."""
    time.sleep(_PAUSE_S)
    trial_work.run(workspace)
    time.sleep(_PAUSE_S)
