"""Sharing of a subsample's places among its groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numpy", reason="the extra 'workflows' is not installed")

from aspen.workflows.tree.subsample import shared

SIZES = st.dictionaries(st.text(max_size=3), st.integers(0, 300), max_size=40)


@given(SIZES, st.integers(0, 2_000))
def test_shares_are_even_and_complete(sizes: dict[str, int], largest: int) -> None:
    places = shared(largest, sizes)
    assert sum(places.values()) == min(largest, sum(sizes.values()))
    assert all(places[name] <= size for name, size in sizes.items())
    open_ones = [places[name] for name, size in sizes.items() if places[name] < size]
    # No group that could get more has two fewer than another.
    assert not open_ones or max(places.values()) - min(open_ones) <= 1


def test_first_groups_get_what_cannot_be_divided() -> None:
    assert shared(2, {"b": 5, "a": 5, "c": 5}) == {"b": 1, "a": 1, "c": 0}
    assert shared(7, {"b": 5, "a": 1, "c": 5}) == {"b": 3, "a": 1, "c": 3}
