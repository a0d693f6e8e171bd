"""What the parts of the baseline share."""

from __future__ import annotations

SCHEMA = "aspen"
