"""``samples update`` and ``delete``, through the API."""

from __future__ import annotations

import json
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.models import Location, Sample
from tests.cli.commands.api_lab import ApiLab, Relay
from tests.remote.conftest import Serving

KEYS = [
    *("id", "private_identifier", "public_identifier", "collection_date", "sequencing_date"),
    *("location", "private", "outcome"),
]


@pytest.fixture
def lab(api_lab: ApiLab) -> ApiLab:
    return api_lab


def _everything(lab: ApiLab) -> dict[int, dict[str, Any]]:
    """Return all that the API shows of the samples of group 1, by ID."""
    answer = lab.service("GET", "/v2/orgs/1/pathogens/SC2/samples/", "gadmin").json()
    return {each["id"]: each for each in answer["samples"]}


def _update(lab: ApiLab, *arguments: str, **options: Any) -> Any:
    return lab("samples", "update", *arguments, "--yes", "-o", "json", **options)


# update


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (("--public-identifier", "NEW/1"), {"public_identifier": "NEW/1"}),
        (("--private-identifier", "L 1"), {"private_identifier": "L 1"}),
        (("--collection-date", "2021-03-04"), {"collection_date": "2021-03-04"}),
        (("--sequencing-date", "2021-03-05"), {"sequencing_date": "2021-03-05"}),
        (("--sequencing-date", "none"), {"sequencing_date": None}),
        (("--private",), {"private": True}),
        (
            ("--public", "--public-identifier", "N/2"),
            {"private": False, "public_identifier": "N/2"},
        ),
    ],
)
def test_update_changes_only_given_fields(
    lab: ApiLab, options: tuple[str, ...], changed: dict[str, Any]
) -> None:
    before = _everything(lab)
    assert before[7]["sequencing_date"] is not None
    ended = _update(lab, "7", *options)
    assert ended.code == 0, ended.err
    (row,) = ended.json
    assert list(row) == KEYS
    after = _everything(lab)
    assert after == {**before, 7: {**before[7], **changed}}
    again = _update(lab, "7", *options)
    assert again.code == 0
    assert [each["outcome"] for each in again.json] == ["unchanged"]


def test_update_accepts_location_by_id_and_by_name(lab: ApiLab) -> None:
    with lab.service.database.reading() as session:
        place = session.scalars(sa.select(Location).where(Location.location.is_not(None))).first()
        assert place is not None
    name = f"{place.region}/{place.country} / {place.division}/{place.location}".upper()
    assert _update(lab, "7", "--location", str(place.id)).code == 0
    assert _everything(lab)[7]["collection_location"]["id"] == place.id
    ended = _update(lab, "8", "--location", name)
    assert ended.code == 0, ended.err
    assert _everything(lab)[8]["collection_location"]["id"] == place.id
    ended = _update(lab, "8", "--location", "North America / USA / Californai")
    assert (ended.code, ended.out) == (6, "")
    assert "similar: North America / USA / California" in ended.err


def test_update_reads_ids_and_identifiers_from_stdin(lab: ApiLab) -> None:
    before = _everything(lab)
    names = f"7\n{before[8]['private_identifier']}\n{before[9]['public_identifier']}\n7\n"
    ended = lab.run(
        *("samples", "update", "-", "--sequencing-date", "2022-01-01", "--yes", "-o", "json"),
        stdin=names,
    )
    assert ended.code == 0, ended.err
    assert [row["id"] for row in ended.json] == [7, 8, 9]
    assert {row["outcome"] for row in ended.json} == {"updated"}
    after = _everything(lab)
    assert {id_ for id_ in after if after[id_] != before[id_]} == {7, 8, 9}


def test_update_shows_how_free_form_date_is_read(lab: ApiLab) -> None:
    ended = _update(lab, "7", "--collection-date", "17 May 2021", "--dry-run")
    assert ended.code == 0
    assert 'Collection date: "17 May 2021" -> 2021-05-17' in ended.err
    assert ended.json[0]["outcome"] == "update"
    assert "2021-05-17" in ended.err
    before = _everything(lab)[7]
    assert before["collection_date"] != "2021-05-17"


def test_update_from_json_data_keeps_omitted_fields(lab: ApiLab) -> None:
    before = _everything(lab)
    data = {"samples": [{"id": 7, "private": True}, {"id": 8, "public_identifier": "J/8"}]}
    ended = _update(lab, "--json-data", json.dumps(data))
    assert ended.code == 0, ended.err
    after = _everything(lab)
    assert after == {
        **before,
        7: {**before[7], "private": True},
        8: {**before[8], "public_identifier": "J/8"},
    }


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "No identifiers given"),
        (("7",), 2, "No changes given"),
        (("7", "8", "--public-identifier", "X"), 2, "2 samples cannot share one public_identifier"),
        (("7", "--collection-date", "01/02/2021"), 2, "did you mean 2021-01-02 or 2021-02-01?"),
        (("7", "--collection-date", "none"), 2, "is not a valid date"),
        (("7", "--public-identifier", "a\tb"), 2, "contains a tab"),
        (("7", "--public-identifier", "x" * 129), 2, "maximum 128"),
        (("nope", "--private"), 6, "No such sample in group 1, SC2: 'nope'"),
        (("7", "--public-identifier", "hCoV-19/USA/CA-RCPHL-3/2020"), 7, "must be unique"),
        (("--json-data", "{"), 2, "Invalid JSON for --json-data"),
        (("--json-data", "[]"), 2, "no list of samples"),
        (("--json-data", '{"samples": [{"id": "7"}]}'), 2, "samples[0] has no id"),
        (
            ("--json-data", '{"samples": [{"id": 7, "x": 1}]}'),
            2,
            "fields that cannot be updated: x",
        ),
        (
            ("--json-data", '{"samples": [{"id": 7, "public_identifier": null}]}'),
            2,
            "public_identifier cannot be null",
        ),
        (("--json-data", '{"samples": [{"id": 7, "private": 1}]}'), 2, "true or false"),
        (
            ("--json-data", '{"samples": [{"id": 7, "collection_location": 0}]}'),
            2,
            "not the ID of a location",
        ),
        (("7", "--json-data", '{"samples": []}'), 2, "--json-data cannot be combined"),
    ],
)
def test_invalid_update_changes_nothing(
    lab: ApiLab, arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = _everything(lab)
    ended = _update(lab, *arguments)
    assert (ended.code, words in ended.err) == (code, True), ended.err
    assert not ended.out or ended.json == []
    assert _everything(lab) == before


@pytest.mark.parametrize(
    ("who", "of", "code"),
    [
        ("viewer", "1", 4),
        ("g2admin", "1", 4),
        ("sysadmin", "1", 4),
        ("nogroup", "1", 4),
    ],
)
@pytest.mark.parametrize("command", ["update", "delete"])
def test_update_and_delete_without_permission_change_nothing(
    lab: ApiLab, command: str, who: str, of: str, code: int
) -> None:
    before = _everything(lab)
    key = next(str(each["id"]) for each in before.values() if not each["private"])
    what = ("--sequencing-date", "2020-01-01") if command == "update" else ()
    ended = lab("samples", command, key, *what, "--org", of, "--yes", who=who)
    assert ended.code == code, ended.err
    assert _everything(lab) == before


def test_update_asks_for_confirmation_and_can_be_declined(lab: ApiLab) -> None:
    before = _everything(lab)
    ended = lab("samples", "update", "7", "--private-identifier", "X")
    assert ended.code == 3
    assert "--dry-run" in ended.err
    command = ("samples", "update", "7", "--private-identifier", "X")
    seen = lab.on_terminal(*command, answers=["n"])
    assert "Target: local (API), group 1" in seen
    assert "Update 1 sample in group 1" in seen
    assert "Declined" in seen
    assert _everything(lab) == before
    assert "1 sample updated" in lab.on_terminal(*command, answers=["y"])
    assert _everything(lab)[7]["private_identifier"] == "X"


def test_update_on_production_requires_confirm(lab: ApiLab) -> None:
    env = lab.environment("member")
    prod = {name.replace("_LOCAL", "_PROD"): value for name, value in env.items()}
    prod |= {"ASPEN_API_URL_PROD": prod["ASPEN_API"], "ASPEN_API": ""}
    command = ("--env", "prod", "samples", "update", "7", "--private-identifier", "X")
    assert lab(*command, "--yes", env=prod).code == 3
    ended = lab(*command, "--confirm", "prod", env=prod)
    assert ended.code == 0, ended.err


def test_update_of_many_samples_is_sent_in_chunks(
    lab: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.samples.edit.EDIT_CHUNK", 4)
    before = _everything(lab)
    keys = [str(key) for key in sorted(before)[:10]]
    ended = _update(lab, *keys, "--sequencing-date", "2022-02-02")
    assert ended.code == 0, ended.err
    assert [row["id"] for row in ended.json] == [int(key) for key in keys]
    after = _everything(lab)
    assert {after[int(key)]["sequencing_date"] for key in keys} == {"2022-02-02"}


def _hold(session: Any, sample: int) -> None:
    """Block other writers of a sample until the session ends."""
    session.execute(sa.select(Sample.id).where(Sample.id == sample).with_for_update())


def test_interrupted_update_reports_updated_samples(lab: ApiLab) -> None:
    before = _everything(lab)
    keys = [str(key) for key in sorted(before)[:260]]
    command = ("samples", "update", *keys, "--collection-date", "1999-12-31", "--yes")
    with lab.service.database.begin() as session:
        _hold(session, int(keys[-1]))
        process = lab.start(*command, "--debug", "-o", "json")
        ended = lab.interrupt(process, "PUT", count=2)
        session.rollback()
    assert ended.code == 130
    assert [row["id"] for row in ended.json] == [int(key) for key in keys[:250]]
    assert "250 of 260 samples were updated before the error (listed above)" in ended.err
    assert "The last request may have been carried out too" in ended.err
    assert lab(*command).code == 0
    after = _everything(lab)
    assert {after[int(key)]["collection_date"] for key in keys} == {"1999-12-31"}


@pytest.mark.parametrize("delivered", [[True], [False], [False, True]])
def test_update_with_lost_response_updates_samples(
    lab: ApiLab, serving: Serving, delivered: list[bool]
) -> None:
    before = _everything(lab)
    relay = serving(route=Relay(lab.service.url, "PUT", delivered))
    ended = _update(lab, "7", "8", "--sequencing-date", "2020-01-01", env={"ASPEN_API": relay.url})
    assert ended.code == 0, ended.err
    assert [row["id"] for row in ended.json] == [7, 8]
    new = {id_: {**before[id_], "sequencing_date": "2020-01-01"} for id_ in (7, 8)}
    assert _everything(lab) == {**before, **new}


def test_update_does_not_overwrite_change_made_during_confirmation(
    lab: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.samples.edit.trusted_for", lambda _seconds: 0)
    from aspencli.cli.context import AppContext

    asked = AppContext.authorize

    def meanwhile(self: AppContext, *args: Any, **kwargs: Any) -> None:
        with lab.service.database.begin() as session:
            session.get_one(Sample, 8).public_identifier = "SOMEBODY/ELSE"
        asked(self, *args, **kwargs)

    monkeypatch.setattr(AppContext, "authorize", meanwhile)
    ended = _update(lab, "7", "8", "--sequencing-date", "2020-01-01")
    assert ended.code == 7
    assert "Another user changed 1 sample in the meantime; nothing was changed" in ended.err
    assert "sample 8" in ended.err
    assert _everything(lab)[7]["sequencing_date"] != "2020-01-01"
    assert _everything(lab)[8]["public_identifier"] == "SOMEBODY/ELSE"


# delete


def _there(lab: ApiLab) -> set[int]:
    with lab.service.database.reading() as session:
        return set(session.scalars(sa.select(Sample.id)))


def test_delete_accepts_ids_and_identifiers(lab: ApiLab) -> None:
    before = _everything(lab)
    keys = ("7", before[8]["private_identifier"], before[9]["public_identifier"])
    planned = lab("samples", "delete", *keys, "--dry-run", "-o", "json")
    assert planned.code == 0
    assert {row["outcome"] for row in planned.json} == {"delete"}
    assert _everything(lab) == before
    ended = lab("samples", "delete", *keys, "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [(row["id"], row["outcome"]) for row in ended.json] == [
        (id_, "deleted") for id_ in (7, 8, 9)
    ]
    assert list(ended.json[0]) == KEYS
    assert set(before) - set(_everything(lab)) == {7, 8, 9}
    again = lab("samples", "delete", *keys, "--yes")
    assert again.code == 6
    assert "No such sample" in again.err
    skipped = lab("samples", "delete", *keys, "10", "--yes", "--skip-missing", "-o", "json")
    assert [row["id"] for row in skipped.json] == [10]
    nothing = lab("samples", "delete", *keys, "--yes", "--skip-missing")
    assert nothing.code == 0
    assert "Nothing to change." in nothing.err


def test_delete_of_empty_list_is_refused(lab: ApiLab) -> None:
    before = _there(lab)
    for arguments, stdin in ((("-",), ""), (("--from", "/dev/null"), None)):
        ended = lab("samples", "delete", *arguments, "--yes", stdin=stdin)
        assert (ended.code, ended.out) == (2, "")
        assert "No identifiers given" in ended.err
    assert _there(lab) == before


def test_interrupted_delete_reports_deleted_samples(lab: ApiLab) -> None:
    keys = [str(key) for key in sorted(_everything(lab))[:510]]
    with lab.service.database.begin() as session:
        _hold(session, int(keys[-1]))
        process = lab.start("samples", "delete", *keys, "--yes", "--debug", "-o", "json")
        ended = lab.interrupt(process, "DELETE", count=2)
        session.rollback()
    assert ended.code == 130
    assert [row["id"] for row in ended.json] == [int(key) for key in keys[:500]]
    assert "500 of 510 samples were deleted before the error (listed above)" in ended.err
    assert "The last request may have been carried out too" in ended.err
    assert not set(map(int, keys[:500])) & _there(lab)
    rest = lab("samples", "delete", *keys, "--yes", "--skip-missing")
    assert rest.code == 0
    assert not set(map(int, keys)) & _there(lab)


@pytest.mark.parametrize("delivered", [[True], [False], [False, True]])
def test_delete_with_lost_response_deletes_samples(
    lab: ApiLab, serving: Serving, delivered: list[bool]
) -> None:
    relay = serving(route=Relay(lab.service.url, "DELETE", delivered))
    ended = lab("samples", "delete", "7", "8", "--yes", env={"ASPEN_API": relay.url})
    assert ended.code == 0, ended.err
    assert not {7, 8} & _there(lab)


def test_delete_of_many_samples_is_sent_in_chunks(
    lab: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspencli.samples.edit.DELETE_CHUNK", 4)
    keys = [str(key) for key in sorted(_everything(lab))[:10]]
    ended = lab("samples", "delete", *keys, "--yes", "-o", "json")
    assert ended.code == 0, ended.err
    assert [row["id"] for row in ended.json] == [int(key) for key in keys]
