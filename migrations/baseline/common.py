"""Constants shared by the parts of the baseline."""

from __future__ import annotations

SCHEMA = "aspen"
