"""Durations as options take them."""

from __future__ import annotations

import datetime as dt
import re

from aspencli.errors import BadInputError

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"\s*(\d{1,5})\s*([smhd])\s*", re.IGNORECASE)


def parse_duration(text: str, option: str) -> dt.timedelta:
    """Parse a duration such as ``90s``, ``10m``, ``2h``, or ``7d``.

    Raises:
        BadInputError: The text is not a duration.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise BadInputError(
            f"Invalid value for {option}: {text!r}",
            hint="Pass a number and a unit (s, m, h, or d), such as 10m.",
        )
    return dt.timedelta(**{_UNITS[found[2].lower()]: int(found[1])})
