"""Messages about clocks that disagree."""

from __future__ import annotations

_MATTERS_S = 60
_IN_HOURS_FROM_S = 5_400


def skew_words(seconds_ahead: float | None, name: str) -> str | None:
    """Return a message about a wrong clock, or None if the clocks agree well enough.

    Args:
        seconds_ahead: How far the server's clock is ahead of this machine's; None if not known.
        name: The display name of the server.
    """
    off = abs(seconds_ahead or 0)
    if seconds_ahead is None or off < _MATTERS_S:
        return None
    span = f"{off / 3600:,.1f} hours" if off >= _IN_HOURS_FROM_S else f"{off / 60:.0f} minutes"
    way = "behind" if seconds_ahead > 0 else "ahead of"
    return f"this machine's clock is {span} {way} that of {name}"
