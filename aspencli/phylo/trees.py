"""URLs returned by the API."""

from __future__ import annotations


def with_scheme(address: str, beside: str) -> str:
    """Return a URL with its scheme, which the API sometimes omits.

    Args:
        address: The URL from the API.
        beside: The URL of the API itself, whose scheme is used.
    """
    if "://" in address:
        return address
    scheme = beside.partition("://")[0]
    return f"{'http' if scheme == 'http' else 'https'}://{address}"
