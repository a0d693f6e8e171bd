"""Addresses that the API hands out."""

from __future__ import annotations


def with_scheme(address: str, beside: str) -> str:
    """An address that can be opened; the API leaves the scheme out of some.

    Args:
        address: What the API said.
        beside: Its own address: what it names goes the same way.
    """
    if "://" in address:
        return address
    scheme = beside.partition("://")[0]
    return f"{'http' if scheme == 'http' else 'https'}://{address}"
