"""Imports of locations and their coordinates."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.imports.coordinates import Matching, distance_km, read_coordinates
from aspen.workflows.imports.locations import Added, add_places
from tests.workflows.imports.conftest import NewJob, execute, rows, write
from tests.workflows.jobs_rig import SHARED, needs_shared_data

STEP = "import-locations"
LONDON, BOSTON = (51.5, -0.1), (42.4, -71.1)
UK, USA = ("Europe", "United Kingdom"), ("North America", "USA")
_ALL = "SELECT * FROM aspen.locations ORDER BY id"


def place(*names: str) -> tuple[str | None, ...]:
    return (*names, *[None] * (4 - len(names)))


def test_listed_coordinates_are_given_to_places_without(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    execute(
        seeded,
        "INSERT INTO aspen.locations (region, country) VALUES ('Europe', 'Utopia');"
        " INSERT INTO aspen.locations (region, country, division)"
        " VALUES ('Europe', 'Utopia', 'Amaurot')",
    )
    execute(seeded, "UPDATE aspen.locations SET latitude = 1, longitude = 2 WHERE country = 'USA'")
    text = (
        "# places\n\ncountry\tUtopia\t50.5\t4.25\ncountry\tUSA\t39\t-99\n"
        "division\tAmaurot\t51\t5\n\nlocation\tNowhere\t0\t0\n"
    )
    job = new(file=str(write(tmp_path / "p.tsv", text)))
    job.run(STEP)
    query = "SELECT division, latitude, longitude FROM aspen.locations WHERE country = :c"
    assert rows(seeded, query, c="Utopia") == [
        {"division": None, "latitude": 50.5, "longitude": 4.25},
        {"division": "Amaurot", "latitude": 51.0, "longitude": 5.0},
    ]
    # Known coordinates stay.
    assert {(one["latitude"], one["longitude"]) for one in rows(seeded, query, c="USA")} == {(1, 2)}
    before = rows(seeded, _ALL)
    job.run(STEP)
    assert rows(seeded, _ALL) == before


def test_names_in_two_countries_do_not_share_coordinates() -> None:
    known = {
        place(*UK): (54.0, -2.0),
        place(*USA): (39.0, -99.0),
        place(*UK, "England"): (52.5, -1.5),
        place(*USA, "Massachusetts"): (42.3, -71.8),
        place(*UK, "England", "Cambridge"): None,
        place(*USA, "Massachusetts", "Cambridge"): None,
    }
    matching = Matching(dict(known))
    assert matching.match({("location", "Cambridge"): [BOSTON]}) == {
        place(*USA, "Massachusetts", "Cambridge"): BOSTON
    }
    assert matching.ambiguous == 1
    both = Matching(dict(known)).match({("location", "Cambridge"): [LONDON, BOSTON]})
    assert both == {
        place(*UK, "England", "Cambridge"): LONDON,
        place(*USA, "Massachusetts", "Cambridge"): BOSTON,
    }


def test_only_place_of_a_name_is_not_put_on_another_continent() -> None:
    known = {
        place(*UK): (54.0, -2.0),
        place(*UK, "England"): (52.5, -1.5),
        place(*UK, "England", "Boston"): None,
    }
    matching = Matching(dict(known))
    assert matching.match({("location", "Boston"): [BOSTON]}) == {}
    assert matching.ambiguous == 1


def test_places_of_one_name_without_surroundings_stay_without() -> None:
    known = {place(*UK, "X", "Y"): None, place(*USA, "X", "Y"): None}
    assert Matching(dict(known)).match({("location", "Y"): [LONDON]}) == {}
    # A country in two regions is one country.
    russia = {place("Europe", "Russia"): None, place("Asia", "Russia"): None}
    assert len(Matching(dict(russia)).match({("country", "Russia"): [(61.0, 99.0)]})) == 2


def test_larger_places_from_the_same_file_tell_smaller_ones_apart() -> None:
    known: dict[tuple[str | None, ...], tuple[float, float] | None] = {
        place(*country, *names): None
        for country, division in ((UK, "England"), (USA, "Massachusetts"))
        for names in ((), (division,), (division, "Cambridge"))
    }
    found = Matching(known).match(
        {
            ("country", "United Kingdom"): [(54.0, -2.0)],
            ("country", "USA"): [(39.0, -99.0)],
            ("division", "Massachusetts"): [(42.3, -71.8)],
            ("location", "Cambridge"): [BOSTON],
        }
    )
    assert found[place(*USA, "Massachusetts", "Cambridge")] == BOSTON
    assert place(*UK, "England", "Cambridge") not in found


def test_table_adds_places_with_their_coordinates(
    seeded: Database, new: NewJob, tmp_path: Path
) -> None:
    text = (
        "region\tcountry\tdivision\tlocation\tlatitude\tlongitude\n"
        "Europe\tUtopia\tAmaurot\tBridge\t50\t4\n"
        "Asia\tUtopia\tAmaurot\tBridge\t\t\n"
    )
    job = new(file=str(write(tmp_path / "p.tsv", text)))
    job.run(STEP)
    query = (
        "SELECT region, division, location, latitude FROM aspen.locations"
        " WHERE country = 'Utopia' ORDER BY id"
    )
    found = rows(seeded, query)
    assert [tuple(one.values()) for one in found] == [
        ("Asia", None, None, None),
        ("Asia", "Amaurot", None, None),
        ("Asia", "Amaurot", "Bridge", None),
        ("Europe", None, None, None),
        ("Europe", "Amaurot", None, None),
        ("Europe", "Amaurot", "Bridge", 50.0),
    ]
    job.run(STEP)
    assert rows(seeded, query) == found


def test_places_of_public_metadata_are_added(seeded: Database, new: NewJob, tmp_path: Path) -> None:
    execute(
        seeded,
        "INSERT INTO aspen.public_repository_metadata (pathogen_id, public_repository_id, strain,"
        " region, country, division) VALUES (1, 1, 'U-1', 'Europe', 'Utopia', 'Amaurot'),"
        " (2, 2, 'U-2', 'Europe', 'Atlantis', NULL)",
    )
    new(file=str(write(tmp_path / "p.tsv", "country\tUtopia\t50\t4\n"))).run(STEP)
    found = rows(seeded, "SELECT country, division FROM aspen.locations WHERE region = 'Europe'")
    assert {"country": "Utopia", "division": "Amaurot"} in found
    assert "Atlantis" not in {one["country"] for one in found}  # another pathogen's


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "p.tsv is empty."),
        ("# only\n# comments\n", "p.tsv has only comments."),
        ("<html></html>", "p.tsv is a web page or XML"),
        ("a\tb\n1\t2\n", "p.tsv is not a list of places"),
        ("country\tUtopia\t91\t0\n", "wrong lines 1."),
        ("country\tUtopia\tnan\t0\n", "wrong lines 1."),
        ("country\tUtopia\t50\t4\nplanet\tMars\t1\t1\n", "wrong lines 2."),
        ("region\tcountry\tdivision\tcode\nA\tB\tC\tD\n", "p.tsv has unknown columns: code."),
        ("region\tcountry\tdivision\nA\t\tC\n", "p.tsv has wrong lines: 2."),
        ("region\tcountry\tdivision\n", "p.tsv has no rows."),
        ("country\tdivision\tlatitude\tlongitude\nA\tB\t5\t\n", "p.tsv has wrong lines: 2."),
    ],
)
def test_wrong_file_changes_nothing(
    seeded: Database, new: NewJob, tmp_path: Path, text: str, words: str
) -> None:
    before = rows(seeded, _ALL)
    assert words in new(file=str(write(tmp_path / "p.tsv", text))).fails(STEP)
    assert rows(seeded, _ALL) == before


def test_readers_and_samples_do_not_wait_for_an_import(seeded: Database) -> None:
    with seeded.begin() as session:
        assert add_places(session, pathogen=1).places == 0
        with seeded.with_limits(lock_ms=2_000).begin() as other:
            other.execute(
                sa.text(
                    "UPDATE aspen.samples SET location_id = (SELECT max(id) FROM aspen.locations)"
                    " WHERE id = (SELECT min(id) FROM aspen.samples)"
                )
            )


def test_result_is_told_in_words() -> None:
    assert str(Added(1, 2, 3, 4)) == (
        "1 locations added; 2 got coordinates, and 4 have none (3 because their names are "
        "ambiguous)"
    )
    assert round(distance_km(LONDON, BOSTON)) in range(5_200, 5_300)


@needs_shared_data
def test_real_list_is_read_completely() -> None:
    found = read_coordinates(SHARED / "ncov_lat_longs.tsv").named
    levels = [level for level, _ in found]
    assert levels.count("country") >= 200
    assert sum(len(positions) for positions in found.values()) > 14_000
