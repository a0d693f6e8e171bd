"""The database where a run was made, compared with the current one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aspencli.changes.runs import Place, is_same_place
from aspencli.config import command_for
from aspencli.errors import RefusedError

HERE = Place("db.example.org", 5432, "aspen_db", "711", 16384)


@pytest.mark.parametrize(
    ("recorded", "here", "same"),
    [
        (HERE, HERE, True),
        (HERE, Place("127.0.0.1", 5433, "aspen_db", "711", 16384), True),  # through a tunnel
        (HERE, Place("db.example.org", 5432, "aspen_db", "712", 16384), None),
        (HERE, Place("db.example.org", 5432, "aspen_db", "711", 16385), None),
        (HERE, Place("db.example.org", 5432, "aspen_db", None, 16385), None),
        (HERE, Place("db.example.org", 5432, "aspen_db", None, 16384), True),
        (HERE, Place("127.0.0.1", 5433, "aspen_db", None, 16384), False),
        (Place("db.example.org", 5432, "aspen_db"), HERE, False),
        (Place(), HERE, False),
        (Place(system="712"), HERE, None),
        (Place(system="711"), HERE, False),
        (HERE, Place(), False),
        (Place(api="https://a.example.org"), Place(api="https://A.example.org:443/"), True),
        (Place(api="https://a.example.org"), Place(api="https://b.example.org"), None),
        (Place(api="http://127.0.0.1:8000"), Place(api="http://localhost:8000"), True),
        (Place(api="http://127.0.0.1:8000"), Place(api="http://127.0.0.1:8001"), None),
        (Place("a.example.org", None), Place(api="https://a.example.org"), True),
        (Place("a.example.org", 8443), Place(api="https://a.example.org"), None),
        (HERE, Place(api="https://a.example.org"), False),
        (replace(HERE, beside="https://A.example.org/"), Place(api="https://a.example.org"), True),
        (replace(HERE, beside="https://b.example.org"), Place(api="https://a.example.org"), None),
        (Place(api="https://a.example.org"), HERE, False),
        (Place(api="https://a.example.org", beside="db.example.org:5432/aspen_db"), HERE, True),
        (Place(api="https://a.example.org", beside="db.example.org:5432/other_db"), HERE, None),
    ],
)
def test_is_same_place_compares_identity_before_addresses(
    recorded: Place, here: Place, same: bool | None
) -> None:
    if same is not None:
        assert is_same_place(recorded, here, "run 1") is same
        return
    with pytest.raises(RefusedError) as caught:
        is_same_place(recorded, here, "run 1")
    assert str(recorded) in caught.value.message
    assert str(here) in caught.value.message


def test_command_for_includes_and_quotes_every_option() -> None:
    command = command_for("rdev/my stack", "samples", "undo", "a b.csv", api="http://h:1/?x=1&y")
    assert command == (
        "aspencli --env rdev --stack 'my stack' --api 'http://h:1/?x=1&y' samples undo 'a b.csv'"
    )
