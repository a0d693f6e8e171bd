"""Scheduled runs: their groups, places, and periods."""

from __future__ import annotations

import json
import threading
from datetime import date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.workflows.tree.schedule import Planned, create, created, planned
from tests.workflows.sub.lab import HOME, Lab, Row, context_row

NOW = datetime(2023, 5, 31, 3, 0)  # noqa: DTZ001 - the columns are naive
WEDNESDAY = 2


@pytest.fixture
def quiet(lab: Lab) -> Lab:
    """Return a lab without samples and public data in any group, and with a dump."""
    with lab.database.begin() as session:
        session.execute(sa.text("UPDATE aspen.samples SET collection_date = '2001-01-01'"))
    lab.context([])
    return lab


def of(plans: list[Planned], group: int) -> Planned:
    return next(one for one in plans if one.group_id == group)


def plans_of(database: Database, now: datetime = NOW) -> list[Planned]:
    with database.reading() as session:
        return planned(session, now.date())


def publish(lab: Lab, row: Row) -> None:
    """Add a row to the public repository's metadata."""
    with lab.database.begin() as session:
        session.execute(
            sa.text(
                "INSERT INTO aspen.public_repository_metadata (pathogen_id, public_repository_id,"
                " strain, date, region, country, division, location) SELECT p.id, r.id, :strain,"
                " :date, :region, :country, nullif(:division, ''), nullif(:location, '')"
                " FROM aspen.pathogens p, aspen.public_repositories r"
                " WHERE p.slug = 'SC2' AND r.name = 'GenBank'"
            ),
            {"division": "", "location": "", **row},
        )


def add_schedule(lab: Lab, group: int, parameters: dict[str, Any]) -> None:
    with lab.database.begin() as session:
        session.execute(
            sa.text(
                "UPDATE aspen.groups SET tree_parameters = CAST(:what AS jsonb) WHERE id = :id"
            ),
            {"what": json.dumps(parameters), "id": group},
        )


@pytest.mark.parametrize(
    ("day", "period", "start"),
    [
        (date(2023, 3, 8), "12 weeks", "2023-03-08"),
        (date(2023, 3, 7), "6 months", "2022-11-30"),
        (date(2022, 6, 1), "12 months", "2022-05-31"),
        (date(2021, 6, 1), "24 months", "2021-05-31"),
    ],
)
def test_shortest_period_with_own_samples_is_used(
    quiet: Lab, day: date, period: str, start: str
) -> None:
    quiet.add_samples(["USA/CA-1/2023"], day=day)
    found = of(plans_of(quiet.database), 2)
    assert (found.period, found.place) == (period, HOME)
    assert found.template_args == {
        "location_id": quiet.location(*HOME),
        "filter_start_date": start,
        "filter_end_date": "2023-05-31",
    }
    assert found.name == "Bayside Department of Public Health Contextual Recency-Focused Build"


def test_public_samples_of_place_are_enough(quiet: Lab) -> None:
    publish(quiet, context_row(1, HOME, date(2023, 5, 31)))
    found = of(plans_of(quiet.database), 2)
    assert (found.period, found.place) == ("12 weeks", HOME)


def test_each_period_is_tried_at_larger_places(quiet: Lab) -> None:
    elsewhere = ("North America", "USA", "California", "Kern County")
    publish(quiet, context_row(1, elsewhere, date(2023, 5, 20)))
    found = of(plans_of(quiet.database), 2)
    assert (found.period, found.place) == ("12 weeks", HOME[:3])
    publish(quiet, context_row(2, HOME, date(2021, 6, 20)))
    found = of(plans_of(quiet.database), 2)
    assert (found.period, found.place) == ("24 months", HOME)


def test_country_is_largest_place(quiet: Lab) -> None:
    publish(quiet, context_row(1, ("North America", "Canada"), date(2023, 5, 20)))
    assert of(plans_of(quiet.database), 2).skipped.startswith("No samples within 24 months")
    publish(quiet, context_row(2, ("North America", "USA", "Nevada"), date(2023, 1, 20)))
    found = of(plans_of(quiet.database), 2)
    assert (found.period, found.place) == ("6 months", HOME[:2])
    assert found.template_args["location_id"] == quiet.location(*HOME[:2])


def test_schedule_lists_weekdays(quiet: Lab) -> None:
    for group in (2, 3):
        quiet.add_samples([f"USA/CA-{group}/2023"], group=group, day=NOW.date())
    add_schedule(quiet, 2, {"schedule_expression": [WEDNESDAY]})
    add_schedule(quiet, 3, {"schedule_expression": [0, 4]})
    found = plans_of(quiet.database)
    assert of(found, 2).is_new
    assert of(found, 3).skipped == "Its schedule does not include Wednesday."
    add_schedule(quiet, 3, {"schedule_expression": []})
    assert not of(plans_of(quiet.database), 3).is_new


def test_nothing_is_scheduled_without_dump(lab: Lab) -> None:
    lab.add_samples(["USA/CA-1/2023"], day=NOW.date())
    assert {one.skipped for one in plans_of(lab.database)} == {
        "There are no aligned data of a public repository for SC2."
    }
    with lab.database.begin() as session:
        assert created(create(session, NOW)) == []


def test_runs_are_created_once_a_day(quiet: Lab) -> None:
    quiet.add_samples(["USA/CA-1/2023"], day=NOW.date())
    results: list[list[int]] = []

    def create_all() -> None:
        with quiet.database.begin() as session:
            results.append(created(create(session, NOW)))

    threads = [threading.Thread(target=create_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1] == results[2]
    (run,) = results[0]
    query = """
        SELECT r.workflow_id, w.workflow_status, r.tree_type, r.template_args ->> 'location_id',
               array(SELECT e.entity_type FROM aspen.workflow_inputs i JOIN aspen.entities e
                         ON e.id = i.entity_id WHERE i.workflow_id = w.id)
          FROM aspen.phylo_runs r JOIN aspen.workflows w ON w.id = r.workflow_id
         WHERE r.group_id = 2 AND r.name LIKE '%Recency-Focused Build'
    """
    ((found, status, kind, place, inputs),) = quiet.rows(query)
    assert (found, status, kind) == (run, "STARTED", "OVERVIEW")
    assert place == str(quiet.location(*HOME))
    assert inputs == ["ALIGNED_PUBLIC_REPOSITORY_DATA"]
    assert of(plans_of(quiet.database), 2).run_id == run
    assert of(plans_of(quiet.database, datetime(2023, 6, 1, 3)), 2).is_new  # noqa: DTZ001 - naive


def test_scheduled_run_can_be_exported(quiet: Lab) -> None:
    rows = [context_row(n, HOME, date(2023, 5, 20)) for n in range(4)]
    quiet.context(rows)
    for row in rows:
        publish(quiet, row)
    with quiet.database.begin() as session:
        run = of(create(session, NOW), 2).run_id
    quiet.folder.mkdir(exist_ok=True)
    (quiet.folder / "job.json").write_text(json.dumps({"run_id": run}))
    exported = quiet.export()
    assert exported["title"] == (
        "Overview tree for samples collected in USA, California, Alameda County"
        " between 2023-03-08 and 2023-05-31"
    )
    assert quiet.align().subsample()["subsamples"]["group"] == 4
