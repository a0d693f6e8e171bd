"""Updating samples with PUT: whole records, all or none."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from aspen.api.schemas.samples import SamplesResponse
from aspen.database.engine import Database
from aspen.database.models import Location, PathogenGenome, Sample, UploadedPathogenGenome
from aspen.local.seed import seed_samples
from tests.api.conftest import Api, ApiFactory

PATH = "/v2/orgs/{}/pathogens/{}/samples/"
YEAR = datetime.now(UTC).year
NOT_UNIQUE = "All private and public identifiers must be unique"
Record = dict[str, Any]


def records(api: Api, principal: str = "member", group: int = 1) -> list[Record]:
    """Return the samples of a group as records that change nothing when they are put."""
    answer = api("GET", PATH.format(group, "SC2"), principal)
    return [as_record(sample) for sample in answer.json()["samples"]]


def as_record(sample: Record) -> Record:
    place = sample["collection_location"]
    same = (
        *("id", "collection_date", "private", "private_identifier"),
        *("public_identifier", "sequencing_date"),
    )
    return {**{key: sample[key] for key in same}, "collection_location": place["id"]}


def put(
    api: Api, samples: Any, principal: str = "member", group: int = 1, slug: str = "SC2"
) -> httpx.Response:
    # Escaped, because not everything that JSON can express is valid UTF-8.
    body = json.dumps({"samples": samples})
    return api("PUT", PATH.format(group, slug), principal, content=body)


def done(answer: httpx.Response) -> list[Record]:
    assert answer.status_code == 200, answer.text
    samples: list[Record] = answer.json()["samples"]
    return samples


def stored(api: Api) -> dict[int, tuple[Any, ...]]:
    """Return everything that a PUT can change, for every sample."""
    genome, uploaded = PathogenGenome.__table__, UploadedPathogenGenome.__table__
    query = (
        sa.select(
            *(Sample.id, Sample.private_identifier, Sample.public_identifier, Sample.private),
            *(Sample.collection_date, Sample.location_id, genome.c.sequencing_date),
        )
        .outerjoin(uploaded, uploaded.c.sample_id == Sample.id)
        .outerjoin(genome, genome.c.entity_id == uploaded.c.pathogen_genome_id)
    )
    with api.database.reading() as session:
        return {row[0]: tuple(row) for row in session.execute(query)}


@contextmanager
def nothing_changed(api: Api) -> Iterator[None]:
    before = stored(api)
    yield
    assert stored(api) == before


def public_ids(api: Api) -> dict[int, str]:
    return {number: row[2] for number, row in stored(api).items()}


# Effects of a whole record


def test_put_writes_every_given_field(api: Api) -> None:
    with api.database.reading() as session:
        place = session.scalars(sa.select(Location.id).order_by(Location.id.desc())).first()
    wanted = {
        "id": 7,
        "collection_date": "2022-1-3",
        "collection_location": place,
        "private": "yes",
        "private_identifier": " lab 7 ",
        "public_identifier": 'hCoV-19/USA/new, "7" \t\n \'ñ🦠/2022',
        "sequencing_date": "2022-02-04",
        "no such key": 1,
    }
    (sample,) = done(put(api, [wanted]))
    assert stored(api)[7] == (
        *(7, "lab 7", 'hCoV-19/USA/new, "7" \t\n \'ñ🦠/2022', True),
        *(date(2022, 1, 3), place, date(2022, 2, 4)),
    )
    assert as_record(sample) == {
        **{key: wanted[key] for key in ("id", "collection_location", "public_identifier")},
        "collection_date": "2022-01-03",
        "private": True,
        "private_identifier": "lab 7",
        "sequencing_date": "2022-02-04",
    }
    assert list(stored(api).items())[8:] == list(stored(api).items())[8:]


def test_put_returns_samples_in_id_order(api: Api) -> None:
    wanted = records(api)[:20]
    random.Random(1).shuffle(wanted)
    answer = put(api, wanted)
    samples = done(answer)
    SamplesResponse.model_validate(answer.json())
    listed = api("GET", PATH.format(1, "SC2"), "member").json()["samples"]
    # The same as the list, except for GISAID, which the live service omits here.
    assert samples == [{**sample, "gisaid": None} for sample in listed[:20]]


def test_put_of_unchanged_records_changes_nothing(api: Api) -> None:
    with nothing_changed(api):
        assert len(done(put(api, records(api)))) == 60


def test_repeated_put_changes_nothing(api: Api) -> None:
    wanted = [{**r, "public_identifier": f"again-{r['id']}"} for r in records(api)]
    first = done(put(api, wanted))
    with nothing_changed(api):
        assert done(put(api, wanted)) == first


def test_omitted_sequencing_date_is_cleared(api: Api) -> None:
    one, other = records(api)[:2]
    del one["sequencing_date"]
    samples = done(put(api, [one, {**other, "sequencing_date": None}]))
    assert [sample["sequencing_date"] for sample in samples] == [None, None]
    assert stored(api)[1][6] is None


@pytest.mark.parametrize(("slug", "prefix"), [("SC2", "hCoV-19"), ("MPX", "MPXV"), ("HCV", "hcv")])
def test_omitted_public_identifier_is_generated(api: Api, slug: str, prefix: str) -> None:
    one, other = records(api)[:2]
    del one["public_identifier"]
    done(put(api, [one, {**other, "public_identifier": None}], slug=slug))
    assert public_ids(api)[1] == f"{prefix}/USA/RCPHL-1/{YEAR}"
    assert public_ids(api)[2] == f"{prefix}/USA/RCPHL-2/{YEAR}"


def test_generated_identifier_contains_new_country(api: Api) -> None:
    with api.database.begin() as session:
        places = [
            Location(region="Europe", country="Iceland", division="Reykjavík"),
            Location(region="Atlantis"),
        ]
        session.add_all(places)
        session.flush()
        ids = [place.id for place in places]
        session.get_one(Sample, 3).location_id = None
    wanted = records_of(api, 1, 2)
    for record, place in zip(wanted, ids, strict=True):
        record.update(collection_location=place, public_identifier=None)
    bare = {**wanted[0], "id": 3, "private_identifier": "bare", "collection_location": 0}
    done(put(api, [*wanted, bare]))
    made = [public_ids(api)[number].split("/")[1] for number in (1, 2, 3)]
    assert made == ["Iceland", "Atlantis", "Unknown"]


def records_of(api: Api, *ids: int) -> list[Record]:
    answer = api("GET", PATH.format(1, "SC2"), "member")
    return [as_record(s) for s in answer.json()["samples"] if s["id"] in ids]


def test_location_zero_keeps_current_location(api: Api) -> None:
    with nothing_changed(api):
        done(put(api, [{**record, "collection_location": 0} for record in records(api)]))


def test_last_record_with_same_id_wins(api: Api) -> None:
    (record,) = records(api)[:1]
    taken = records(api)[1]["public_identifier"]
    wanted = [{**record, "public_identifier": name} for name in (taken, "first", "last")]
    assert len(done(put(api, wanted))) == 1
    assert public_ids(api)[1] == "last"


def test_sample_without_location_or_sequence_can_be_updated(api: Api) -> None:
    with api.database.begin() as session:
        session.get_one(Sample, 2).location_id = None
        remove_sequence(session, 2)
    answer = api("GET", PATH.format(1, "SC2"), "member").json()["samples"][1]
    assert (answer["collection_location"], answer["sequencing_date"]) == (None, None)
    record = {**as_record({**answer, "collection_location": {"id": 0}}), "private": True}
    (sample,) = done(put(api, [record]))
    assert (sample["private"], sample["collection_location"]) == (True, None)
    assert stored(api)[2][3:] == (True, stored(api)[2][4], None, None)


def test_sequencing_date_without_sequence_is_rejected(api: Api) -> None:
    with api.database.begin() as session:
        remove_sequence(session, 2)
    wanted = [{**record, "sequencing_date": "2022-01-01"} for record in records(api)[:3]]
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 400
    assert answer.json()["ids"] == [2]
    assert "sequencing_date" in answer.json()["error"]


def remove_sequence(session: Any, sample: int) -> None:
    statement = sa.text("DELETE FROM aspen.uploaded_pathogen_genomes WHERE sample_id = :sample")
    session.execute(statement, {"sample": sample})


def test_put_of_empty_list_returns_no_samples(api: Api) -> None:
    assert put(api, []).json() == {"samples": []}


# Names that move between samples


def permuted(api: Api, moves: dict[int, int], column: str = "public_identifier") -> None:
    """Move names between samples, and check that all other names stay."""
    before = {record["id"]: record for record in records(api)}
    wanted = [{**before[to], column: before[source][column]} for to, source in moves.items()]
    done(put(api, wanted))
    after = {record["id"]: record for record in records(api)}
    for number, record in before.items():
        expected = before[moves.get(number, number)][column]
        assert after[number] == {**record, column: expected}


@pytest.mark.parametrize("column", ["public_identifier", "private_identifier"])
@pytest.mark.parametrize(
    "moves",
    [
        {14: 15, 15: 14},
        {1: 2, 2: 3, 3: 1},
        {3: 2, 2: 1, 1: 3},
        {n: n % 60 + 1 for n in range(1, 61)},
        {n: 61 - n for n in range(1, 61)},
    ],
    ids=["swap", "cycle", "cycle the other way", "everybody moves on", "everybody swaps"],
)
def test_identifiers_can_be_permuted_between_samples(
    api: Api, moves: dict[int, int], column: str
) -> None:
    permuted(api, moves, column)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("down", [False, True])
def test_chain_of_identifiers_moves_in_any_record_order(
    api: Api, backwards: bool, down: bool
) -> None:
    held = public_ids(api)
    chain = [14, 15, 16] if down else [16, 15, 14]
    names = [held[chain[1]], held[chain[2]], "new"]
    by_id = {record["id"]: record for record in records(api)}
    wanted = [{**by_id[n], "public_identifier": name} for n, name in zip(chain, names, strict=True)]
    done(put(api, wanted[::-1] if backwards else wanted))
    assert [public_ids(api)[number] for number in chain] == names


def test_swap_of_both_identifiers_succeeds_in_one_request(api: Api) -> None:
    one, other = records(api)[:2]
    names = ("private_identifier", "public_identifier")
    done(
        put(
            api,
            [
                {**one, **{name: other[name] for name in names}},
                {**other, **{name: one[name] for name in names}},
            ],
        )
    )
    after = records(api)[:2]
    assert [r["private_identifier"] for r in after] == [
        r["private_identifier"] for r in (other, one)
    ]
    assert [r["sequencing_date"] for r in after] == [r["sequencing_date"] for r in (one, other)]


def test_identifier_released_in_same_request_can_be_reused(api: Api) -> None:
    one, other = records(api)[:2]
    freed = other["public_identifier"]
    wanted = [{**one, "public_identifier": freed}, {**other, "public_identifier": "elsewhere"}]
    done(put(api, wanted))
    assert (public_ids(api)[1], public_ids(api)[2]) == (freed, "elsewhere")


def test_identifier_used_by_another_group_is_accepted(
    make_api: ApiFactory, roles: Database
) -> None:
    api = make_api(roles)
    theirs = records(api, "g2member", 2)
    name = next(r["public_identifier"] for r in theirs if r["private_identifier"])
    (record,) = records(api)[:1]
    done(put(api, [{**record, "public_identifier": name}]))
    assert list(public_ids(api).values()).count(name) == 2


# Requests that are refused as a whole


@pytest.mark.parametrize("column", ["public_identifier", "private_identifier"])
def test_identifier_held_by_another_sample_is_rejected_with_clash(api: Api, column: str) -> None:
    held = records(api)
    wanted = [{**record, column: f"fine-{record['id']}"} for record in held[:5]]
    wanted[2][column] = held[30][column]
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": NOT_UNIQUE,
        "clashes": [
            {
                "field": column,
                "value": held[30][column],
                "ids": [held[2]["id"]],
                "held_by": held[30]["id"],
            }
        ],
    }
    assert list(answer.json()) == ["error", "clashes"]


@pytest.mark.parametrize("column", ["public_identifier", "private_identifier"])
def test_identifier_requested_twice_is_rejected_with_clash(api: Api, column: str) -> None:
    wanted = [{**record, column: "the same"} for record in records(api)[:3]]
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 400
    assert answer.json()["clashes"] == [
        {"field": column, "value": "the same", "ids": [1, 2, 3], "held_by": None}
    ]


def test_identifier_kept_by_its_holder_in_request_is_rejected(api: Api) -> None:
    one, other = records(api)[:2]
    with nothing_changed(api):
        answer = put(api, [{**one, "public_identifier": other["public_identifier"]}, other])
    assert answer.status_code == 400
    assert answer.json()["clashes"][0]["ids"] == [1, 2]


def test_identifier_held_by_sample_of_another_pathogen_is_rejected(api: Api) -> None:
    with api.database.begin() as session:
        session.get_one(Sample, 9).pathogen_id = 2
        name = session.get_one(Sample, 9).public_identifier
    with nothing_changed(api):
        answer = put(api, [{**records(api)[0], "public_identifier": name}])
    assert (answer.status_code, answer.json()["clashes"][0]["held_by"]) == (400, 9)


def test_identifiers_are_case_sensitive(api: Api) -> None:
    one, other = records(api)[:2]
    done(put(api, [{**one, "public_identifier": other["public_identifier"].upper()}]))


def test_one_invalid_record_among_1000_changes_nothing(
    make_api: ApiFactory, roles: Database
) -> None:
    api = make_api(roles)
    held = records(api)
    wanted = [{**record, "public_identifier": f"new-{record['id']}"} for record in held]
    wanted[700]["public_identifier"] = "new-1"
    with nothing_changed(api):
        assert put(api, wanted).status_code == 400
    wanted[700]["id"] = 999_999
    with nothing_changed(api):
        answer = put(api, wanted)
    assert (answer.status_code, answer.json()["ids"]) == (404, [999_999])


@pytest.mark.parametrize("unknown", [[0], [-1], [999_999], [-(2**31), 2**31 - 1]])
def test_unknown_sample_ids_return_404_with_ids(api: Api, unknown: list[int]) -> None:
    good = records(api)[0]
    wanted = [{**good, "public_identifier": "new"}, *({**good, "id": n} for n in unknown)]
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 404
    assert answer.json() == {"error": "some samples cannot be updated", "ids": unknown}


def test_unknown_location_is_rejected_with_sample_ids(api: Api) -> None:
    wanted = records(api)[:4]
    wanted[1]["collection_location"], wanted[3]["collection_location"] = 99_999, -5
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 400
    assert answer.json() == {
        "error": "location is invalid",
        "locations": [-5, 99_999],
        "ids": [2, 4],
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"collection_date": "2021-02-30"}, "collection_date"),
        ({"collection_date": "2021-02-03T00:00:00"}, "collection_date"),
        ({"sequencing_date": "yesterday"}, "sequencing_date"),
        ({"id": ...}, "id"),
        ({"id": None}, "id"),
        ({"id": 2**31}, "id"),
        ({"id": "x"}, "id"),
        ({"collection_location": ...}, "collection_location"),
        ({"collection_location": None}, "collection_location"),
        ({"collection_location": 2**31}, "collection_location"),
        ({"private": ...}, "private"),
        ({"private": "perhaps"}, "private"),
        ({"private_identifier": ...}, "private_identifier"),
        ({"private_identifier": None}, "private_identifier"),
        ({"private_identifier": ""}, "private_identifier"),
        ({"private_identifier": "   "}, "private_identifier"),
        ({"private_identifier": "x" * 129}, "private_identifier"),
        ({"private_identifier": 5}, "private_identifier"),
        ({"public_identifier": ""}, "public_identifier"),
        ({"public_identifier": "x" * 129}, "public_identifier"),
        ({"public_identifier": 5}, "public_identifier"),
        ({"public_identifier": "a\0b"}, "public_identifier"),
        ({"private_identifier": "a\0b"}, "private_identifier"),
        ({"public_identifier": "\ud800"}, "public_identifier"),
    ],
    ids=str,
)
def test_invalid_record_returns_422_with_row_and_field(
    api: Api, change: Record, field: str
) -> None:
    wanted = records(api)[:3]
    wanted[1] |= change
    wanted[1] = {key: value for key, value in wanted[1].items() if value is not ...}
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 422, answer.text
    (finding,) = answer.json()["detail"]
    assert finding["loc"] == ["body", "samples", 1, field]


@pytest.mark.parametrize("without", [{}, {"collection_date": None}], ids=["omitted", "null"])
def test_missing_collection_date_is_rejected_with_sample_ids(api: Api, without: Record) -> None:
    wanted = records(api)[:5]
    for row in (1, 3):
        del wanted[row]["collection_date"]
        wanted[row] |= without
    with nothing_changed(api):
        answer = put(api, wanted)
    assert answer.status_code == 400
    assert answer.json() == {"error": "collection_date is required", "ids": [2, 4]}


@pytest.mark.parametrize(
    ("body", "status"),
    [("{}", 422), ("[]", 422), ('{"samples": {}}', 422), ("nonsense", 422), ("", 422)],
)
def test_body_of_wrong_shape_returns_422(api: Api, body: str, status: int) -> None:
    answer = api("PUT", PATH.format(1, "SC2"), "member", content=body)
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_list_instead_of_object_returns_422(api: Api) -> None:
    answer = api("PUT", PATH.format(1, "SC2"), "member", json=records(api)[:1])
    assert answer.status_code == 422
    assert api("PUT", PATH.format(1, "SC2"), "member", json={}).json()["detail"][0]["loc"] == [
        "body",
        "samples",
    ]


def test_identifier_of_128_characters_is_accepted(api: Api) -> None:
    (record,) = records(api)[:1]
    done(put(api, [{**record, "public_identifier": "x" * 128}]))


# Permissions


@pytest.mark.parametrize(
    ("principal", "group", "owner", "status"),
    [
        *((who, 1, 1, 200) for who in ("gadmin", "member", "sysmember", "multi")),
        ("viewer", 1, 1, 404),
        *((who, 2, 1, 404) for who in ("g2admin", "g2member", "multi")),
        *((who, 2, 2, 200) for who in ("g2admin", "g2member", "multi")),
        *((who, 3, 2, 200) for who in ("g3admin", "g3member")),
        ("g3member", 3, 1, 404),
        ("member", 1, 2, 404),
        *((who, 1, 1, 403) for who in ("sysadmin", "nogroup", "g2admin", "g3admin", "g3member")),
        (None, 1, 1, 401),
    ],
)
def test_put_is_permitted_by_role_and_group(
    make_api: ApiFactory,
    roles: Database,
    principal: str | None,
    group: int,
    owner: int,
    status: int,
) -> None:
    api = make_api(roles)
    with roles.reading() as session:
        query = sa.select(Sample.id).where(Sample.submitting_group_id == owner, ~Sample.private)
        number = session.scalars(query.order_by(Sample.id)).first()
    wanted = {
        "id": number,
        "collection_date": "2021-01-01",
        "collection_location": 0,
        "private": False,
        "private_identifier": "changed",
        "public_identifier": "changed",
    }
    before = stored(api)[number or 0]
    answer = api("PUT", PATH.format(group, "SC2"), principal, json={"samples": [wanted]})
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["samples"][0]["private_identifier"] == "changed"
        assert stored(api)[number or 0][1:3] == ("changed", "changed")
    else:
        errors = {404: "some samples cannot be updated", 403: "Not authorized"}
        assert answer.json()["error"] == errors.get(status, "Login failure")
        assert stored(api)[number or 0] == before


def test_generated_identifier_has_prefix_of_owning_group(
    make_api: ApiFactory, roles: Database
) -> None:
    api = make_api(roles)
    answer = api("GET", PATH.format(3, "SC2"), "g3member").json()["samples"]
    theirs = next(sample for sample in answer if sample["submitting_group"]["id"] == 2)
    record = {**as_record(theirs), "private_identifier": "changed", "public_identifier": None}
    done(put(api, [record], "g3member", 3))
    assert public_ids(api)[theirs["id"]] == f"hCoV-19/USA/BDPH-{theirs['id']}/{YEAR}"


@pytest.mark.parametrize("slug", ["SC2", "MPX", "HCV"])
def test_pathogen_in_path_need_not_match_sample(api: Api, slug: str) -> None:
    with nothing_changed(api):
        done(put(api, records(api)[:1], slug=slug))
    answer = put(api, records(api)[:1], slug="sc2")
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid pathogen slug"})


# Large requests and concurrent ones


def test_put_accepts_more_than_32766_samples(make_api: ApiFactory, crowded: Database) -> None:
    seed_samples(crowded, 20_800, group=1)
    api = make_api(crowded)
    wanted = records(api)
    assert len(wanted) > 32_767
    names = [record["public_identifier"] for record in wanted]
    for record, name in zip(wanted, names[1:] + names[:1], strict=True):
        record["public_identifier"] = name
    samples = done(put(api, wanted))
    assert [sample["public_identifier"] for sample in samples] == names[1:] + names[:1]
    assert records(api) == wanted


def test_concurrent_puts_of_same_samples_are_serialized(api: Api) -> None:
    wanted = [
        [{**record, "public_identifier": f"{run}-{record['id']}"} for record in records(api)]
        for run in range(6)
    ]
    for rows in wanted[::2]:
        rows.reverse()
    barrier = threading.Barrier(len(wanted))

    def send(rows: list[Record]) -> int:
        barrier.wait()
        headers = {"Authorization": f"Bearer {api.token('member')}"}
        path = api.url + PATH.format(1, "SC2")
        answer = httpx.put(path, json={"samples": rows}, headers=headers, timeout=60)
        return answer.status_code

    with ThreadPoolExecutor(len(wanted)) as pool:
        assert list(pool.map(send, wanted)) == [200] * len(wanted)
    runs = {name.partition("-")[0] for name in public_ids(api).values()}
    assert len(runs) == 1


def test_concurrent_puts_of_same_identifier_let_one_succeed(api: Api) -> None:
    held = records(api)
    for attempt in range(10):
        barrier = threading.Barrier(2)

        def send(record: Record, barrier: threading.Barrier = barrier) -> httpx.Response:
            headers = {"Authorization": f"Bearer {api.token('member')}"}
            path = api.url + PATH.format(1, "SC2")
            barrier.wait()
            return httpx.put(path, json={"samples": [record]}, headers=headers, timeout=60)

        wanted = [
            {**held[row], "public_identifier": f"wanted-{attempt}"}
            for row in (2 * attempt, 2 * attempt + 1)
        ]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(send, wanted))
        assert sorted(answer.status_code for answer in answers) == [200, 400]
        (refused,) = (answer.json() for answer in answers if answer.status_code == 400)
        assert refused["error"] == NOT_UNIQUE
        clash = refused["clashes"][0]
        assert {*clash["ids"], clash["held_by"]} == {record["id"] for record in wanted}


def test_put_waits_for_sample_locked_by_another_transaction(api: Api) -> None:
    wanted = [{**record, "public_identifier": f"n-{record['id']}"} for record in records(api)[:3]]
    with api.database.begin() as session, ThreadPoolExecutor(1) as pool:
        session.get_one(Sample, 2).host = "Bat"
        session.flush()
        running = pool.submit(put, api, wanted)
        with pytest.raises(TimeoutError):
            running.result(0.5)
        session.commit()
        done(running.result(30))
    with api.database.reading() as session:
        sample = session.get_one(Sample, 2)
        assert (sample.host, sample.public_identifier) == ("Bat", "n-2")
