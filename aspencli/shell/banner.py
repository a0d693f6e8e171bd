"""The banner shown before the first prompt: the target, its address, and the defined names."""

from __future__ import annotations

from urllib.parse import parse_qs, unquote, urlsplit

from aspencli.targets import Safety

_DANGER = {
    Safety.LOCAL: "local",
    Safety.SHARED: "shared with colleagues",
    Safety.PRODUCTION: "PRODUCTION",
}


def banner(label: str, safety: Safety, address: str, *, writing: bool) -> list[str]:
    """Return the lines of the banner.

    Args:
        label: Display name of the target.
        safety: Safety level of the target.
        address: Database address; its password is left out.
        writing: Whether sessions may write.
    """
    return [
        f"Aspen console on {label} ({_DANGER[safety]}): {mode(writing=writing)}",
        f"  {place(address)}",
        "  engine (also db), session, sa, select, and every model: User, Sample, Group, ...",
        "  session.scalars(select(Sample).limit(3)).all()",
        "  %profile on|off|report: time queries; %write [off]: write, or only read; %tb: traceback",
    ]


def mode(*, writing: bool) -> str:
    """Return the session mode as text."""
    return "WRITING" if writing else "read-only"


def place(address: str) -> str:
    """Return the database, server, and user of an address, without its password.

    (SQLAlchemy could parse the address, but is not loaded yet.)
    """
    parts = urlsplit(address)
    query = parse_qs(parts.query)
    server = parts.netloc.rpartition("@")[2] or query.get("host", ["this machine"])[0]
    user = unquote(parts.username or query.get("user", ["(default user)"])[0])
    return f"database {unquote(parts.path.lstrip('/'))} on {unquote(server)} as {user}"
