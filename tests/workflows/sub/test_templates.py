"""Templates, lineages, dates, and shares."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from aspen.workflows.steps import StepError
from aspen.workflows.tree.templates import (
    Filters,
    Place,
    expand_lineages,
    read_filters,
    template,
    title,
)

HOME = Place("North America", "USA", "California", "Alameda County")
NOW = datetime(2023, 1, 20, 9, 30)  # noqa: DTZ001 - the column is naive


def numbers(pathogen: str, kind: str, place: Place = HOME, chosen: int = 1) -> dict[str, object]:
    made = template(pathogen, kind, place, chosen=chosen)
    return {one.name: one.each or one.max for one in made.subsamples}


def test_mpox_has_its_own_numbers() -> None:
    assert numbers("MPX", "OVERVIEW") == {
        "group": 500,
        "state": 300,
        "country": 300,
        "international": 300,
        "international_serial_sampling": 2,
    }
    assert numbers("MPX", "NON_CONTEXTUALIZED") == {"group": 1000}
    assert numbers("MPX", "TARGETED") == numbers("SC2", "TARGETED")
    serial = template("MPX", "OVERVIEW", HOME).subsamples[-1]
    assert serial.group_by == ("region", "year")


@pytest.mark.parametrize(("chosen", "quarter"), [(99, 25), (100, 25), (101, 26), (400, 100)])
def test_targeted_numbers_follow_chosen_samples(chosen: int, quarter: int) -> None:
    assert numbers("SC2", "TARGETED", chosen=chosen) == {
        "closest": max(chosen, 100),
        "group": 2 * quarter,
        "state": 2 * quarter,
        "country": quarter,
        "international": quarter,
        "international_serial_sampling": 2,
    }


def test_international_samples_are_at_least_a_hundred_for_large_places() -> None:
    division = Place("North America", "USA", "California")
    assert numbers("SC2", "TARGETED", division)["international"] == 100
    assert numbers("SC2", "TARGETED", division, chosen=800)["international"] == 200


def test_unknown_template_is_refused() -> None:
    with pytest.raises(StepError, match="no template for UNKNOWN trees of SC2"):
        template("SC2", "UNKNOWN", HOME)
    with pytest.raises(StepError, match="no template for OVERVIEW trees of HCV"):
        template("HCV", "OVERVIEW", HOME)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["BA.1*"], ("BA.1", "BA.1.1", "BA.1.17")),
        (["BA.1"], ("BA.1",)),
        (["delta"], ("AY", "AY.4", "B.1.617.2")),
        (["Omicron"], ("B.1.1.529", "BA", "BA.1", "BA.1.1", "BA.1.17", "BA.10")),
        (["BA.1 / 21K", "XBB;1"], ("BA.1", "XBB1")),
        (["", "*", " "], ()),
    ],
)
def test_lineages_are_expanded(wanted: list[str], found: tuple[str, ...]) -> None:
    known = ["BA.1", "BA.1.1", "BA.1.17", "BA.10", "AY.4", "B.1", "B.1.617.2"]
    assert expand_lineages(wanted, known) == found


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("2022-12-01", date(2022, 12, 1)),
        ("12 weeks ago", date(2022, 10, 28)),
        ("now", date(2023, 1, 20)),
        ("5 days ago", date(2023, 1, 15)),
        ("January 3, 2021", date(2021, 1, 3)),
    ],
)
def test_dates_may_be_words(text: str, day: date) -> None:
    assert read_filters({"filter_start_date": text}, (), NOW).start == day


@pytest.mark.parametrize(
    ("filters", "started", "end"),
    [
        (Filters(date(2022, 1, 1), date(2022, 2, 1)), NOW, "between 2022-01-01 and 2022-02-01"),
        (Filters(start=date(2022, 1, 1)), NOW, "between 2022-01-01 and 2023-01-20"),
        (Filters(end=date(2022, 2, 1)), NOW, "up until 2022-02-01"),
        (Filters(), NOW, "up until 2023-01-20"),
        (Filters(), None, "up until --"),
    ],
)
def test_title_has_place_and_period(filters: Filters, started: datetime | None, end: str) -> None:
    found = title("NON_CONTEXTUALIZED", HOME, filters, started)
    place = "USA, California, Alameda County"
    assert found == f"Non-Contextualized tree for samples collected in {place} {end}"
