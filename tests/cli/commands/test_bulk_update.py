"""``samples bulk-update``: valid files, refused files, and the changes written."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import openpyxl
import pytest

from aspencli.cli.main import run
from tests import zygote
from tests.cli.commands.bulk_lab import Bench, State
from tests.cli.commands.mapping_lab import Lab
from tests.cli.commands.test_history import finish, lock_on

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@pytest.fixture
def bench(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """Return a new group whose commands run in this process, without a terminal."""
    own = Lab(lab.address, tmp_path)
    for name, value in own.environment().items():
        monkeypatch.setenv(name, value)

    def call(*words: str) -> tuple[int, str, str]:
        own.use(monkeypatch, words)
        capsys.readouterr()
        return run(words), *capsys.readouterr()

    return Bench(own, tmp_path, call)


# Updates


def test_service_edit_template_updates_every_column(bench: Bench) -> None:
    template = (
        "Current Private ID\tNew Private ID - Optional\tPublic ID\tCollection Date\t"
        "Collection Location\tSequencing Date - Optional\tSample is Private\n"
    )
    ended = bench.update("private_identifier,sequencing_date\nL-1,2024-03-01\n")
    assert ended.code == 0, ended.err
    ended = bench.update(f"{template}L-1\tN-1\tQ-1\t2024-02-29\tEurope/Greece/Attica\tDelete\tNo\n")
    assert ended.code == 0, ended.err
    assert ended.changed == {
        "L-1": {
            "private": "N-1",
            "public": "Q-1",
            "collected": "2024-02-29",
            "sequenced": None,
            "hidden": False,
            "location": 903,
        }
    }
    assert "Note: read as the service's edit template" in ended.err
    assert "ignored" not in ended.err


def test_bulk_update_takes_saved_map_skip_lines_and_date_format(bench: Bench) -> None:
    config = Path(os.environ["ASPEN_HOME"], "config", "config.toml")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        '[maps.lims]\n"Lab ID" = "private_identifier"\n"Sampled" = "collection_date"\n'
    )
    content = "exported from the LIMS\nLab ID;Sampled\nL-1;29.02.2024\n"
    options = ("--map", "@lims", "--skip-lines", "1", "--date-format", "DD.MM.YYYY")
    ended = bench.update(content, *options, "--yes")
    assert (ended.code, ended.changed) == (0, {"L-1": {"collected": "2024-02-29"}}), ended.err
    ended = bench.update(content, "--map", "@lab", *options[2:], "--yes")
    assert (ended.code, ended.changed) == (2, {})
    assert "No column map named 'lab'" in ended.err


@pytest.mark.parametrize("key", ["private_identifier", "public_identifier", "id"])
def test_every_column_is_updated_with_every_key(key: str, bench: Bench) -> None:
    found = {"private_identifier": "L-1", "public_identifier": "P-1", "id": str(bench.ids["L-1"])}
    ended = bench.update(
        f"{key},new_private_identifier,new_public_identifier,collection_date,sequencing_date,"
        f"private,location\n{found[key]},N-1,Q-1,2024-02-29,2024-03-01,No,Europe/Greece/Attica\n"
    )
    assert ended.code == 0, ended.err
    assert ended.changed == {
        "L-1": {
            "private": "N-1",
            "public": "Q-1",
            "collected": "2024-02-29",
            "sequenced": "2024-03-01",
            "hidden": False,
            "location": 903,
        }
    }


def test_blank_cells_keep_values(bench: Bench) -> None:
    ended = bench.update(
        "private_identifier,collection_date,private,location\n"
        "L-1,2024-01-01,,\nL-2,,false,\nL-3,,,\nL-4, , ,902\n"
    )
    assert ended.code == 0, ended.err
    assert ended.changed == {
        "L-1": {"collected": "2024-01-01"},
        "L-2": {"hidden": False},
        "L-4": {"location": 902},
    }
    assert "3 to update, 1 unchanged" in ended.err


def test_date_in_words_is_written_and_explained(bench: Bench) -> None:
    ended = bench.update("private_identifier,sequencing_date\nL-1,3 Days ago\n", "--yes")
    assert ended.code == 0, ended.err
    day = (dt.datetime.now().astimezone() - dt.timedelta(days=3)).date().isoformat()
    assert f'sequencing_date: "3 Days ago" is {day}' in ended.err
    assert bench.state()["L-1"]["sequenced"] == day


@pytest.mark.parametrize(("cell", "options"), [("\\N", ()), ("none", ("--clear-word", "none"))])
def test_clear_word_clears_sequencing_date(
    cell: str, options: tuple[str, ...], bench: Bench
) -> None:
    ended = bench.update(f"id,sequencing_date\n{bench.ids['L-1']},{cell}\n", "--yes", *options)
    assert (ended.code, ended.changed) == (0, {"L-1": {"sequenced": None}})
    ended = bench.update("private_identifier,sequencing_date\nL-1,2020-01-01\n")
    assert (ended.code, ended.changed) == (0, {"L-1": {"sequenced": "2020-01-01"}})


@pytest.mark.parametrize(
    ("cell", "value"),
    [("true", True), ("YES", True), ("1", True), ("False", False), ("no", False), ("0", False)],
)
def test_booleans_are_accepted_in_any_spelling(cell: str, value: bool, bench: Bench) -> None:
    bench.set("L-1", private=not value)
    ended = bench.update(f"private_identifier,private\nL-1,{cell}\n")
    assert (ended.code, ended.changed) == (0, {"L-1": {"hidden": value}})


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        ("902", 902),
        ("Europe / Greece", 902),
        ("Europe/Greece", 902),
        (" Europe  /Greece / / ", 902),
        ("EUROPE / Georgia", 905),
        ("europe / greece / attica / ATHENS", 904),
        ("Europe / greece", 907),
        ("Europe", 901),
        ("Asia / macau", 911),
    ],
)
def test_locations_are_found_by_id_and_by_name(cell: str, place: int, bench: Bench) -> None:
    ended = bench.update(f"private_identifier,location\nL-1,{cell}\n")
    assert (ended.code, ended.changed) == (0, {"L-1": {"location": place}}), ended.err


BOTH = "private_identifier,new_private_identifier,public_identifier"
SWAPS: dict[str, tuple[str, State]] = {
    "private identifiers": (
        "private_identifier,new_private_identifier\nL-1,L-2\nL-2,L-1\n",
        {"L-1": {"private": "L-2"}, "L-2": {"private": "L-1"}},
    ),
    "a cycle of private identifiers": (
        "private_identifier,new_private_identifier\nL-1,L-2\nL-2,L-3\nL-3,L-1\n",
        {"L-1": {"private": "L-2"}, "L-2": {"private": "L-3"}, "L-3": {"private": "L-1"}},
    ),
    "a chain of private identifiers": (
        "private_identifier,new_private_identifier\nL-1,L-2\nL-2,L-3\nL-3,N-3\n",
        {"L-1": {"private": "L-2"}, "L-2": {"private": "L-3"}, "L-3": {"private": "N-3"}},
    ),
    "both at once": (
        f"{BOTH},collection_date\nL-1,L-2,P-2,2024-01-01\nL-2,L-1,P-1,\nL-3,,P-4,\nL-4,,P-3,\n",
        {
            "L-1": {"private": "L-2", "public": "P-2", "collected": "2024-01-01"},
            "L-2": {"private": "L-1", "public": "P-1"},
            "L-3": {"public": "P-4"},
            "L-4": {"public": "P-3"},
        },
    ),
    "by public identifiers, which are swapped, too": (
        "public_identifier,new_public_identifier,new_private_identifier\nP-1,P-2,L-2\nP-2,P-1,L-1\n",
        {
            "L-1": {"private": "L-2", "public": "P-2"},
            "L-2": {"private": "L-1", "public": "P-1"},
        },
    ),
}


@pytest.mark.parametrize("name", list(SWAPS))
def test_swap_file_is_applied_once_until_undone(name: str, bench: Bench) -> None:
    content, expected = SWAPS[name]
    before = bench.state()
    ended = bench.update(content)
    assert (ended.code, ended.changed) == (0, expected), ended.err
    first = bench.last_run()["run"]

    again = bench.update(content)
    assert (again.code, again.changed) == (0, {}), again.err
    assert f"Nothing to change: run {first} already wrote this file." in again.err
    assert bench.last_run()["outcome"] == "nothing to do"
    planned = bench.update(content, "--dry-run")
    assert f"Run {first} already wrote this file" in planned.err
    assert planned.changed == {}

    assert bench.undo(first).code == 0
    assert bench.state() == before
    ended = bench.update(content)
    assert (ended.code, ended.changed) == (0, expected), ended.err


def test_moved_undo_file_marks_its_run_as_undone(bench: Bench) -> None:
    """Otherwise, a file with swaps could never be applied again."""
    content, expected = SWAPS["private identifiers"]
    assert bench.update(content).code == 0
    first = bench.last_run()["run"]
    moved = bench.undo_file().rename(bench.folder / "to be kept.csv")
    assert bench.undo(moved).code == 0
    code, shown, _err = bench.run("history", "show", first, "--output", "json")
    assert (code, json.loads(shown)[0]["undone_by"]) == (0, [bench.last_run()["run"]])
    ended = bench.update(content)
    assert (ended.code, ended.changed) == (0, expected), ended.err


def test_repeated_swap_is_refused_while_first_outcome_is_unknown(bench: Bench) -> None:
    content = SWAPS["private identifiers"][0]
    assert bench.update(content).code == 0
    journal = bench.folder / "home" / "state" / "history" / "journal.jsonl"
    started, *others = [json.loads(line) for line in journal.read_text().splitlines()]
    events = [started | {"pid": 1}, *others[:-1]]
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    ended = bench.update(content)
    assert (ended.code, ended.changed) == (7, {})
    check = re.search(r"aspencli --env local (history check \S+)", ended.err)
    assert check
    assert bench.run(*check[1].split())[0] == 0
    assert bench.update(content).code == 0


def test_renamed_sample_is_recognized_if_its_row_is_already_applied(
    bench: Bench,
) -> None:
    header = "private_identifier,new_private_identifier,collection_date\n"
    assert bench.update(f"{header}L-1,N-1,2024-01-01\n").code == 0
    ended = bench.update(f"{header}L-1,N-1,2024-01-01\nL-2,N-2,\n")  # another file
    assert (ended.code, ended.changed) == (0, {"L-2": {"private": "N-2"}}), ended.err
    ended = bench.update(f"{header}L-1,N-1,2024-12-31\n")
    assert (ended.code, ended.changed) == (2, {})
    assert 'the group has no sample "L-1"' in ended.err


def test_second_bulk_update_changes_nothing(bench: Bench) -> None:
    content = (
        "private_identifier,public_identifier,sequencing_date\nL-1,P-2,\\N\nL-2,P-1,2024-01-01\n"
    )
    assert len(bench.update(content).changed) == 2
    ended = bench.update(content, "--output", "json")
    assert (ended.code, ended.changed) == (0, {})
    assert (ended.json[0]["already"], ended.json[0]["undo_file"]) == (2, None)


def test_workbook_dates_and_leading_zeros_are_kept(bench: Bench) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet
    sheet.append(["private_identifier", "Sampled", "public_identifier", "private"])
    sheet.append(["L-1", dt.date(2024, 3, 5), 7, True])
    moment = dt.datetime(2024, 3, 6)  # noqa: DTZ001 - workbooks have no time zones
    sheet.append(["L-2", moment, "Q-2", None])
    sheet["C2"].number_format = "0000"
    path = bench.folder / "changes.xlsx"
    book.save(path)
    ended = bench.update(path, "--yes", "--map", "Sampled=collection_date")
    assert ended.code == 0, ended.err
    assert ended.changed == {
        "L-1": {"collected": "2024-03-05", "public": "0007"},
        "L-2": {"collected": "2024-03-06", "public": "Q-2"},
    }
    assert "dates are read" not in ended.err  # the cells hold real dates


# Refusals


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("collection_date", "\\N", "cannot be cleared: every sample needs one"),
        ("collection_date", "05/03/2024", "did you mean 2024-03-05 or 2024-05-03?"),
        ("collection_date", "5 March 2024", "did you mean 2024-03-05?"),
        ("collection_date", "2024-3-5", "did you mean 2024-03-05?"),
        ("collection_date", "45356", "did you mean 2024-03-05?"),
        ("collection_date", "2024-03-05T12:00:00", "did you mean 2024-03-05?"),
        ("collection_date", "2023-02-30", '"2023-02-30" is not a valid date; use YYYY-MM-DD'),
        ("sequencing_date", "soon", '"soon" is not a valid date'),
        ("private", "maybe", '"maybe" is not true or false'),
        ("private", "\\N", "cannot be cleared"),
        ("location", "\\N", "cannot be cleared: the service cannot list samples without one"),
        ("location", "99999", 'there is no location "99999"'),
        ("location", "Utopia", 'there is no location "Utopia"'),
        ("location", "Grece", 'there is no location "Grece"'),
        ("location", "Europe / Grece", 'did you mean "Europe / Greece"?'),
        ("location", "USA / Georgia", 'did you mean "North America / USA / Georgia"?'),
        ("location", "Asia / Macao", '"Asia / Macao" matches several locations: 908, 909'),
        ("location", "asia / Macau", '"asia / Macau" matches several locations: 910, 911'),
        ("public_identifier", "P-2", '"P-2" is already used by sample "L-2"'),
        ("public_identifier", "\\N", "cannot be cleared: every sample needs one"),
        ("public_identifier", "x" * 129, "is too long: 129 characters (maximum 128)"),
        ("public_identifier", "a\x1bb", "contains an escape character (U+001B)"),
        ("new_private_identifier", "L-2", '"L-2" is already used by sample "L-2"'),
    ],
)
def test_invalid_values_are_reported_by_line(
    column: str, cell: str, reason: str, bench: Bench
) -> None:
    ended = bench.update(f'private_identifier,{column}\nL-3,\nL-1,"{cell}"\n')
    assert (ended.code, ended.changed, ended.out) == (2, {}, "")
    told = column.removeprefix("new_") if "is already used by" in reason else column
    assert re.search(f"^line 3: {told}: .*{re.escape(reason)}", ended.err, re.MULTILINE), ended.err
    assert "cannot be applied: 1 problem; nothing was written" in ended.err
    assert not _CONTROL.search(ended.err)


NO_GENOME = "has no genome, which would hold the sequencing date"


def test_all_problems_are_reported_in_one_run(bench: Bench) -> None:
    ended = bench.update(
        "public_identifier,new_public_identifier,sequencing_date,location\n"
        "P-1,X,2024-01-01,\nP-2,X,,Utopia\nP-9,,,902\nP-5,,2024-01-01,\nP-3,P-5,,\n,Y,,\nP-1,Y,,\nP-4\n"
    )
    assert ended.code == 2
    assert [line for line in ended.err.splitlines() if line.startswith("line ")] == [
        'line 3: location: there is no location "Utopia"',
        "line 3: public_identifier: duplicate of line 2",
        'line 4: public_identifier: the group has no sample "P-9"',
        f'line 5: sequencing_date: sample "L-5" {NO_GENOME}',
        'line 6: public_identifier: "P-5" is already used by sample "L-5"',
        "line 7: public_identifier: is blank",
        "line 8: public_identifier: duplicate of line 2",
        "line 9: has too few cells: 1 (the header has 4)",
    ]


@pytest.mark.parametrize(
    ("header", "options", "says"),
    [
        ("private_identifier,note", (), "has no column to update"),
        ("collection_date,private", (), "has no column that identifies the sample of each row"),
        (
            "private_identifier,colection_date",
            (),
            "'colection_date' (did you mean collection_date?)",
        ),
        ("id,private_identifier,private", (), "of each row: private_identifier, id"),
        ("private_identifier,private", ("--key", "id"), "has no column id\n"),
        ("private_identifier,private", ("--key", "name"), "Invalid value for --key: 'name'"),
        ("private_identifier,private,private", (), "2 columns private"),
        (
            "id,public_identifier,new_public_identifier",
            ("--key", "id"),
            "public_identifier and new_public_identifier",
        ),
        ("private_identifier,private", ("--map", "X=private"), "has no column 'X'"),
        ("private_identifier,private", ("--map", "X=organism"), "value for --map: 'X=organism'"),
        ("private_identifier,private", ("--clear-word", " "), "--clear-word cannot be blank"),
    ],
)
def test_unusable_headers_and_column_options_are_refused(
    header: str, options: tuple[str, ...], says: str, bench: Bench
) -> None:
    ended = bench.update(
        f"{header}\n" + ",".join("1" for _ in header.split(",")), "--yes", *options
    )
    assert (ended.code, ended.changed, ended.out) == (2, {}, "")
    assert says in ended.err
    assert "→ " in ended.err


def test_key_option_selects_matching_column(bench: Bench) -> None:
    content = f"id,private_identifier,public_identifier\n{bench.ids['L-1']},L-2,P-2\n"
    ended = bench.update(content, "--yes", "--key", "public_identifier")
    assert (ended.code, ended.changed) == (0, {})  # P-2 already is L-2
    assert "\nNote: ignored columns: id.\n" in ended.err
    assert "\nNote: values in ignored columns: id (1).\n1 row for group " in ended.err
    ended = bench.update(
        content.replace("P-2", "N-1").replace("L-2", "L-9"), "--yes", "--key", "id"
    )
    assert (ended.code, ended.changed) == (0, {"L-1": {"private": "L-9", "public": "N-1"}})


def test_automatically_chosen_key_is_reported(bench: Bench) -> None:
    ended = bench.update("public_identifier,private_identifier\nN-1,L-1\n")
    assert ended.changed == {"L-1": {"public": "N-1"}}
    assert "Note: samples are matched by private_identifier (to change: --key)." in ended.err


def test_samples_of_other_groups_are_not_found(bench: Bench) -> None:
    other = bench.lab.group({"M-1": "M-1"})
    with bench.lab.engine.connect() as connection:
        row = connection.exec_driver_sql(
            f"SELECT id FROM aspen.samples WHERE submitting_group_id = {other}"
        ).one()
    ended = bench.update(f"id,private\n{row.id},false\n")
    assert (ended.code, ended.changed) == (2, {})
    assert f"line 2: id: the group has no sample {row.id}\n" in ended.err


# Output and saved files


CHANGES = (
    "private_identifier,public_identifier,sequencing_date,location\n"
    "L-1,P-2,\\N,902\nL-2,P-1,,\nL-3,P-3,,\n"
)
PLAN = [
    (2, "L-1", "public_identifier", "P-1", "P-2", "update"),
    (2, "L-1", "sequencing_date", "2023-05-20", None, "update"),
    (2, "L-1", "location", None, "Europe / Greece", "update"),
    (3, "L-2", "public_identifier", "P-2", "P-1", "update"),
    (4, "L-3", "public_identifier", "P-3", "P-3", "unchanged"),
]


def test_plan_has_a_row_for_each_value(bench: Bench) -> None:
    ended = bench.update(CHANGES, "--dry-run", "--output", "jsonl")
    assert (ended.code, ended.changed) == (0, {})
    keys = ("line", "key", "column", "before", "after", "action", "outcome")
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert found == [dict(zip(keys, (*row, row[-1]), strict=True)) for row in PLAN]
    assert "2 to update, 1 unchanged, 2 identifiers move between samples in this file" in ended.err


def test_report_has_a_row_for_each_value(bench: Bench) -> None:
    path = bench.folder / "report.json"
    ended = bench.update(CHANGES, "--yes", "--report", str(path))
    assert ended.code == 0
    keys = ("line", "key", "column", "before", "after", "outcome", "reason")
    outcomes = {"update": "updated", "unchanged": "unchanged"}
    assert json.loads(path.read_text()) == [
        dict(zip(keys, (*row[:5], outcomes[str(row[5])], None), strict=True)) for row in PLAN
    ]
    bench.update("private_identifier,private\nL-1,maybe\nL-9,1\n", "--yes", "--report", str(path))
    refused = [tuple(row.values()) for row in json.loads(path.read_text())]
    assert refused[0][:3] == (2, None, None)
    assert refused[1] == (
        *(3, "L-9", "private", None, "true", "failed"),
        'private_identifier: the group has no sample "L-9"',
    )


def test_fixed_rejects_are_applied(bench: Bench) -> None:
    rejects = bench.folder / "bad.csv"
    content = "private_identifier,collection_date\nL-1,2024-01-01\nL-2,1/2/2024\nL-9,2024-01-01\n"
    assert bench.update(content, "--yes", "--rejects", str(rejects)).code == 2
    text = rejects.read_text(encoding="utf-8-sig")
    assert [line.split(",")[0] for line in text.splitlines()] == ["line", "3", "4"]
    fixed = text.replace("1/2/2024", "2024-02-01").replace("L-9", "L-3")
    ended = bench.update(fixed)
    assert ended.changed == {"L-2": {"collected": "2024-02-01"}, "L-3": {"collected": "2024-01-01"}}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 3),
        (("--no-input",), 3),
        (("--env", "prod", "--yes"), 3),
        (("--env", "prod", "--confirm", "prod"), 0),
    ],
)
def test_bulk_update_without_terminal_requires_confirmation(
    options: tuple[str, ...], code: int, bench: Bench
) -> None:
    ended = bench.update("private_identifier,private\nL-1,0\n", *(options or ("--no-input",)))
    assert (ended.code, bool(ended.changed)) == (code, not code)
    if code:
        assert "update 1 sample in group" in ended.err


# Undo


def test_undo_restores_every_column_and_can_be_undone(bench: Bench) -> None:
    before = bench.state()
    content = (
        "id,private_identifier,public_identifier,collection_date,sequencing_date,private,location\n"
        f"{bench.ids['L-1']},L-2,P-2,2024-01-01,\\N,0,904\n{bench.ids['L-2']},L-1,P-1,,,,\n"
    )
    assert bench.update(content, "--yes", "--key", "id").code == 0
    after, run_id = bench.state(), bench.last_run()["run"]
    planned = bench.undo(run_id, "--dry-run", "--output", "jsonl")
    rows = [json.loads(line) for line in planned.out.splitlines()]
    assert [row["after"] for row in rows] == [
        *("L-1", "P-1", "2023-05-17", "2023-05-20", "true", None),
        *("L-2", "P-2"),
    ]
    assert [row["key"] for row in rows] == ["L-2"] * 6 + ["L-1"] * 2  # their current names
    assert bench.undo(run_id).code == 0
    assert bench.state() == before
    again = bench.undo(run_id)
    assert (again.code, again.changed) == (0, {})
    assert bench.undo(bench.history()[1]["run"]).code == 0
    assert bench.state() == after


def test_undo_skips_samples_changed_since_unless_forced(bench: Bench) -> None:
    bench.update(
        "private_identifier,public_identifier,collection_date,private\n"
        "L-1,N-1,2024-01-01,\nL-2,,2024-01-01,0\nL-3,,2024-01-01,\n"
    )
    run_id = bench.last_run()["run"]
    bench.set("L-1", collection_date="1999-12-31")
    bench.set("L-2", public_identifier="theirs")  # not changed by the run
    report = bench.folder / "report.json"
    ended = bench.undo(run_id, "--yes", "--report", str(report))
    assert ended.code == 7
    assert ended.changed == {
        "L-2": {"collected": "2023-05-17", "hidden": True},
        "L-3": {"collected": "2023-05-17"},
    }
    outcomes = {row["key"]: row["outcome"] for row in json.loads(report.read_text())}
    assert outcomes == {"L-1": "skipped", "L-2": "updated", "L-3": "updated"}
    words = (
        'line 3: collection_date: "L-1" now has collection_date "1999-12-31", expected "2024-01-01"'
    )
    assert f"Skipped {words}" in ended.err
    ended = bench.undo(run_id, "--yes", "--force")
    assert (ended.code, ended.changed) == (
        0,
        {"L-1": {"public": "P-1", "collected": "2023-05-17"}},
    )
    assert f"{bench.ids['L-1']}\tL-1\tcollection_date\t2024-01-01\t1999-12-31\n" in ended.err


def test_undo_skips_samples_blocked_by_skipped_samples(bench: Bench) -> None:
    bench.update("public_identifier,new_private_identifier\nP-1,L-2\nP-2,L-3\nP-3,N-3\n")
    bench.set("L-3", private_identifier="since")
    bench.lab.execute(
        "UPDATE aspen.samples SET private_identifier = 'L-1' WHERE id = :id", id=bench.ids["L-4"]
    )
    ended = bench.undo(bench.last_run()["run"])
    assert (ended.code, ended.changed) == (7, {})
    assert "3 of 3 samples skipped (listed above)" in ended.err


def test_undo_restores_special_characters(bench: Bench) -> None:
    odd = ["=1+1", "'=1", "\\N", "\\", "\\\\N", "''", "a,b", 'q"q', "\\x"]
    names = {f"L-{number}": text for number, text in enumerate(odd)}
    bench = Bench(bench.lab, bench.folder, bench.run, names)
    before = bench.state()
    rows = "".join(f"L-{number},new{number},0\n" for number in range(len(odd)))
    assert bench.update(f"private_identifier,public_identifier,private\n{rows}").code == 0
    assert bench.undo(bench.last_run()["run"]).code == 0
    assert bench.state() == before


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text.replace("2024-01-01", "2024-13-01"), "collection_date: is damaged"),
        (lambda text: text.replace(",true\n", ",\n"), "private: is damaged"),
        (lambda text: text.replace(",true\n", ",maybe\n"), "private: is damaged"),
        (lambda text: text.replace(",L-1,", "x,L-1,"), "is not a number"),
        (lambda text: text.rpartition(",")[0], "is truncated"),
        (
            lambda text: text.replace('"of": "samples"', '"of": "users"'),
            "not an aspencli undo file",
        ),
        (lambda text: text.replace('"private"]', '"organism"]'), "not an aspencli undo file"),
        (lambda text: text.replace('"columns": [', '"columns": [5, '), "not an aspencli undo file"),
    ],
)
def test_damaged_undo_files_are_refused(
    damage: Callable[[str], str], says: str, bench: Bench
) -> None:
    bench.update("private_identifier,collection_date,private\nL-1,2024-01-01,0\n")
    path = bench.undo_file()
    path.write_text(damage(path.read_text()))
    ended = bench.undo(path)
    assert (ended.code, ended.changed) == (2, {})
    assert says in ended.err


def test_history_check_infers_outcome_of_dead_run_from_samples(bench: Bench) -> None:
    bench.update(
        "private_identifier,collection_date,sequencing_date,location\nL-1,2024-01-01,\\N,902\n"
    )
    journal = bench.folder / "home" / "state" / "history" / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()][:-1]
    forged = [{**event, "pid": 1, "transaction": 10**7} for event in events]
    journal.write_text("".join(json.dumps(event) + "\n" for event in forged))
    run_id = bench.last_run()["run"]
    code, out, err = bench.run("history", "check", run_id, "--output", "json")
    assert code == 0, err
    told = json.loads(out)[0]
    assert told["outcome"] == "written"
    assert told["basis"] == "every sample has the value that it wrote"
    assert (told["written"], told["before"], told["otherwise"], told["gone"]) == (1, 0, 0, 0)


# Concurrent changes and interrupts


EVERYTHING = (
    "private_identifier,new_private_identifier,public_identifier,sequencing_date,private\n"
    "L-1,L-2,P-2,\\N,0\nL-2,L-1,P-1,2024-01-01,\nL-3,,P-3,,1\n"
)


def begin(bench: Bench, content: str, name: str = "changes.csv") -> subprocess.Popen[str]:
    words = ["samples", "bulk-update", "--group-id", str(bench.group), "--yes"]
    return zygote.start(
        [*words, "--from", str(bench.file(content, name))],
        env=bench.lab.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_write_changes_nothing(number: signal.Signals, code: int, bench: Bench) -> None:
    before = bench.state()
    with lock_on(bench.lab, bench.group) as wait, begin(bench, EVERYTHING) as process:
        wait()
        process.send_signal(number)
        assert finish(process)[0] == code
    assert bench.state() == before
    assert bench.last_run()["outcome"] == "rolled back"
    assert len(bench.update(EVERYTHING).changed) == 2


def test_concurrent_sequencing_date_change_is_a_conflict(bench: Bench) -> None:
    before = bench.state()
    dates = (
        "UPDATE aspen.pathogen_genomes g SET sequencing_date = '1999-12-31' "
        "FROM aspen.uploaded_pathogen_genomes u "
        "WHERE u.pathogen_genome_id = g.entity_id AND u.sample_id = :id"
    )
    with begin(bench, EVERYTHING) as process:
        with lock_on(bench.lab, bench.group) as wait:
            wait()
            bench.lab.execute(dates, id=bench.ids["L-2"])
        code, out, err = finish(process)
    assert (code, out) == (7, "")
    words = 'sample "L-2" now has sequencing_date "1999-12-31", expected "2023-05-20"'
    assert f"line 3: {words}" in err
    before["L-2"]["sequenced"] = "1999-12-31"
    assert bench.state() == before


def test_second_of_two_concurrent_runs_ends_in_conflict(bench: Bench) -> None:
    other = EVERYTHING.replace("2024-01-01", "2025-01-01")
    with begin(bench, EVERYTHING) as first, begin(bench, other, "other.csv") as second:
        with lock_on(bench.lab, bench.group) as wait:
            wait()
            while len(bench.history()) < 2:  # until both have made their plans
                time.sleep(0.05)
        ended = [finish(process) for process in (first, second)]
    assert sorted(code for code, _out, _err in ended) == [0, 7], ended
    state = bench.state()
    assert (state["L-1"]["private"], state["L-2"]["private"]) == ("L-2", "L-1")
    assert state["L-2"]["sequenced"] in {"2024-01-01", "2025-01-01"}


# Memory

_MEASURED = """
import resource, sys
from aspencli.cli.main import run
code = run(sys.argv[1:])
sys.stdout.write(f"{code} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


def test_memory_does_not_grow_with_file_size(bench: Bench) -> None:
    peaks = []
    for count in (10, 60_000):
        rows = "".join(f"X-{n},N-{n},2024-01-01,1,Utopia\n" for n in range(count))
        header = "private_identifier,public_identifier,collection_date,private,location\n"
        file = bench.file(header + rows)
        words = ["samples", "bulk-update", "--group-id", str(bench.group), "-f", str(file)]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words],
            env=bench.lab.environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        code, peak = done.stdout.split()
        assert code == "2"
        peaks.append(int(peak))
    assert peaks[1] < peaks[0] * 1.2
