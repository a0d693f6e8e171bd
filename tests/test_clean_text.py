"""Values that an operator may enter: texts, e-mail addresses, and IDs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aspencli.errors import BadInputError
from aspencli.text import as_id, clean_email, clean_text


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.text())
def test_clean_text_returns_one_storable_line_or_refuses(text: str) -> None:
    try:
        clean = clean_text(text, "it")
    except BadInputError:
        return
    assert clean
    assert clean == clean.strip()
    assert "\x00" not in clean
    clean.encode()  # no half of a surrogate pair
    assert len(clean.splitlines()) == 1


@settings(deadline=None)  # a busy machine must not fail the test
@given(st.text())
def test_as_id_accepts_only_postgresql_integers(text: str) -> None:
    number = as_id(text)
    assert number is None or (0 <= number < 2**31 and str(number) == text)


@pytest.mark.parametrize(
    "address", ["a@b.org", "ada+lab@sub.domain.example.org", "o'neil@lab.ie", "ada@münchen.de"]
)
def test_valid_email_address_is_returned_unchanged(address: str) -> None:
    assert clean_email(f" {address} ") == address


@pytest.mark.parametrize("address", ["@b.org", "a@.org", "a@b.", "a@b.c@d.e", "a@b", "a b@c.d", ""])
def test_invalid_email_address_is_refused(address: str) -> None:
    with pytest.raises(BadInputError):
        clean_email(address)
