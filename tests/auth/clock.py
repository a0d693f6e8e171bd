"""A machine whose clock is wrong, as far as a command can tell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.auth.conftest import Lab

_SITE = """
import os, time
_right = time.time
time.time = lambda: _right() + float(os.environ.get("CLOCK_OFF", "0"))
"""


def wrong_clock(lab: Lab, seconds_ahead: int) -> dict[str, str]:
    """Return the environment of a command on such a machine."""
    Path(lab.env["PYTHONPATH"], "sitecustomize.py").write_text(_SITE)
    return {"CLOCK_OFF": str(seconds_ahead)}
