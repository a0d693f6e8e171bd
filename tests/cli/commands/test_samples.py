"""``aspencli samples list`` and ``show``, on a real database."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from aspen.database.engine import Database
from aspen.database.models import Accession, AccessionType

if TYPE_CHECKING:
    from tests.cli.commands.conftest import AddSample, Cli
    from tests.conftest import CliRunner

LIST_KEYS = [
    "id",
    "private_identifier",
    "public_identifier",
    "group",
    "pathogen",
    "collection_date",
    "location",
    "private",
    "uploaded_by",
]
SHOW_KEYS = [
    "id",
    "matched_by",
    "private_identifier",
    "public_identifier",
    "private",
    "group",
    "pathogen",
    "collection_date",
    "location",
    "collection_location",
    "uploaded_by",
    "organism",
    "host",
    "purpose_of_sampling",
    "specimen_processing",
    "sample_collected_by",
    "sample_collector_contact_email",
    "sample_collector_contact_address",
    "authors",
    "genome",
    "aligned_genome",
    "accessions",
    "lineages",
    "qc_metrics",
    "mutations",
    "original_submission",
]
HOSTILE = '=cmd()[red]\x1b[31m\x9b2J\u202egnp,"q"\r\n\tend'


def _rows(out: str, form: str) -> list[dict[str, Any]]:
    if form == "json":
        return list(json.loads(out))
    if form == "jsonl":
        return [json.loads(line) for line in out.splitlines()]
    delimiter = "," if form == "csv" else "\t"
    return list(csv.DictReader(io.StringIO(out, newline=""), delimiter=delimiter))


# list


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
def test_list_keys_are_stable(cli: Cli, form: str) -> None:
    ended = cli("samples", "list", "--output", form, "--limit", "2")
    assert ended.code == 0
    rows = _rows(ended.out, form)
    assert [list(row) for row in rows] == [LIST_KEYS] * 2
    assert [int(row["id"]) for row in rows] == [1, 2]
    assert rows[0]["private_identifier"] == "RCPHL-0000001"
    assert rows[0]["location"] == "North America / USA / California / San Mateo County"


def test_list_in_json_keeps_types(cli: Cli) -> None:
    row = cli("samples", "list", "-o", "json", "--limit", "1").json[0]
    assert row["private"] is False
    assert row["id"] == 1
    assert row["pathogen"] == "SC2"
    assert row["uploaded_by"] == "Gale Admin"


def test_list_off_terminal_has_all_rows_and_no_note(cli: Cli) -> None:
    ended = cli("samples", "list")
    assert ended.ids == list(range(1, 61))
    assert ended.err == ""


@pytest.mark.parametrize("name", ["2", "Bayside Department of Public Health", "BDPH", "bdph"])
def test_list_finds_group_by_id_name_and_prefix(cli: Cli, add_sample: AddSample, name: str) -> None:
    mine = add_sample(submitting_group_id=2)
    assert cli("samples", "list", "--group", name).ids == [mine]


def test_org_option_is_default_group_of_list(
    cli: Cli, add_sample: AddSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = add_sample(submitting_group_id=2), add_sample(submitting_group_id=3)
    assert cli("--org", "2", "samples", "list").ids == [mine]
    monkeypatch.setenv("CZGE_ORG", "2")
    assert cli("samples", "list").ids == [mine]
    assert cli("samples", "list", "--group", "3").ids == [other]


def test_list_filters_by_pathogen_only_if_given(
    cli: Cli, add_sample: AddSample, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpx = add_sample(pathogen_id=2)
    assert mpx in cli("samples", "list").ids  # SC2 is only the default setting
    assert cli("samples", "list", "--pathogen", "mpx").ids == [mpx]
    assert cli("samples", "list", "--pathogen-slug", "MPX").ids == [mpx]
    monkeypatch.setenv("CZGE_PATHOGEN", "SC2")
    assert mpx not in cli("samples", "list").ids


def test_list_filters_by_private_and_public(cli: Cli) -> None:
    private, public = (cli("samples", "list", f"--{word}").ids for word in ("private", "public"))
    assert private
    assert sorted(private + public) == list(range(1, 61))


def test_list_date_filters_are_inclusive(cli: Cli, add_sample: AddSample) -> None:
    mine = add_sample(collection_date=dt.date(2023, 5, 17))
    on_the_day = ("--collected-after", "2023-05-17", "--collected-before", "2023-05-17")
    assert cli("samples", "list", *on_the_day).ids == [mine]
    assert cli("samples", "list", "--collected-after", "2023-05-18").ids == []


@pytest.mark.parametrize("words", ["yesterday", "1 day ago", "1d"])
def test_list_takes_dates_in_words(cli: Cli, add_sample: AddSample, words: str) -> None:
    today = dt.datetime.now().astimezone().date()
    mine = add_sample(collection_date=today)
    names = {"private_identifier": "LAB-2", "public_identifier": "PUB-2"}
    add_sample(collection_date=today - dt.timedelta(days=3), **names)
    assert cli("samples", "list", "--collected-after", words).ids == [mine]


def test_list_with_dates_in_wrong_order_exits_with_2(cli: Cli) -> None:
    days = ("--collected-after", "2023-05-18", "--collected-before", "2023-05-17")
    ended = cli("samples", "list", *days)
    assert ended.code == 2
    assert "Swap the two dates" in ended.err


@pytest.mark.parametrize("day", ["5/6/2023", "2023-02-30", "soon"])
def test_list_with_invalid_date_exits_with_2(cli: Cli, day: str) -> None:
    ended = cli("samples", "list", "--collected-after", day)
    assert ended.code == 2
    assert day in ended.err


def test_list_filters_by_any_part_of_location(cli: Cli) -> None:
    found = cli("samples", "list", "--location", "california / san mateo").tsv
    assert found
    assert {row["location"] for row in found} == {
        "North America / USA / California / San Mateo County"
    }


def test_list_search_matches_wildcards_literally(cli: Cli, add_sample: AddSample) -> None:
    mine = add_sample(private_identifier="100%_pure")
    assert cli("samples", "list", "--search", "0%_P").ids == [mine]
    assert cli("samples", "list", "--search", "pub-1").ids == [mine]
    assert cli("samples", "list", "--search", "1__").ids == []


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "tsv"])
def test_empty_list_prints_note_and_exits_with_0(cli: Cli, form: str) -> None:
    ended = cli("samples", "list", "--search", "nowhere", "-o", form)
    assert ended.code == 0
    assert ended.err == "No samples found.\n"
    if form != "table":
        assert _rows(ended.out, form) == []


def test_list_table_stops_at_100_rows_and_explains_paging(cli: Cli, add_sample: AddSample) -> None:
    for number in range(45):
        add_sample(private_identifier=f"L{number}", public_identifier=f"P{number}")
    ended = cli("samples", "list", "-o", "table")
    assert len(ended.out.splitlines()) > 100
    assert "100 of 105 samples shown" in ended.err
    assert "--all" in ended.err
    last = ended.err.split("--after ")[1].split(".")[0]
    rest = cli("samples", "list", "--after", last)
    assert len(rest.ids) == 5
    for everything in (("--all",), ("--limit", "0")):
        assert "samples shown" not in cli("samples", "list", "-o", "table", *everything).err


def test_list_with_exactly_limit_rows_prints_no_note(cli: Cli) -> None:
    assert cli("samples", "list", "--limit", "60").err == ""


@pytest.mark.parametrize(
    "sort", ["id", "private_identifier", "public_identifier", "collection_date"]
)
@pytest.mark.parametrize("reverse", [(), ("--reverse",)])
def test_list_pages_add_up_to_whole_list(cli: Cli, sort: str, reverse: tuple[str, ...]) -> None:
    order = ("--sort", sort, *reverse)
    whole = cli("samples", "list", *order).ids
    assert sorted(whole) == list(range(1, 61))
    pages: list[int] = []
    while len(pages) < 60:
        after = ("--after", str(pages[-1])) if pages else ()
        page = cli("samples", "list", *order, "--limit", "25", *after).ids
        assert page
        pages += page
    assert pages == whole


def test_list_sorts_by_collection_date(cli: Cli) -> None:
    days = [
        row["collection_date"] for row in cli("samples", "list", "--sort", "collection_date").tsv
    ]
    assert days == sorted(days)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ("--group", "RCPLH"),
            6,
            "similar: 1  Redwood County Public Health Laboratory (prefix RCPHL)",
        ),
        (("--group", "99"), 6, "No such group: '99'"),
        (("--group", "99999999999999"), 6, "No such group: "),
        (("--org", "nobody"), 6, "No such group: 'nobody'"),
        (("--pathogen", "SC3"), 6, "Did you mean SC2?"),
        (("--after", "999"), 6, "no such sample: 999"),
        (("--group", " "), 2, "The group is blank"),
        (("--search", "a\x00b"), 2, "U+0000"),
        (("--search", "\udcff"), 2, "U+DCFF"),
        (("--all", "--limit", "3"), 2, "cannot be combined"),
        (("--limit", "-1"), 2, "--limit"),
        (("--sort", "name"), 2, "--sort"),
        (("--output", "xml"), 2, "(choose table, json, jsonl, csv, tsv)"),
    ],
)
def test_invalid_list_options_are_refused(
    cli: Cli, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ended = cli("samples", "list", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert "bug" not in ended.err


@pytest.mark.parametrize("form", ["table", "json", "jsonl", "csv", "tsv"])
@pytest.mark.parametrize("command", ["list", "show"])
def test_control_characters_and_formulas_in_output_are_escaped(
    cli: Cli, add_sample: AddSample, form: str, command: str
) -> None:
    mine = add_sample(private_identifier=HOSTILE)
    which = ("--after", "60") if command == "list" else (str(mine),)
    ended = cli("samples", command, *which, "-o", form)
    assert ended.code == 0
    assert not set(ended.out + ended.err) & set("\x1b\x9b\u202e")
    assert "[red]" in ended.out
    if form in {"csv", "tsv"}:
        cell = _rows(ended.out, form)[0]["private_identifier"]
        assert cell.startswith("'=cmd()[red]\\x1b[31m")
    elif form != "table":
        assert _rows(ended.out, form)[0]["private_identifier"] == HOSTILE


def test_invisible_characters_of_key_are_escaped_in_error(cli: Cli) -> None:
    ended = cli("samples", "show", "no[red]\u200bsuch")
    assert ended.code == 6
    assert "no[red]\\u200bsuch" in ended.err


def test_list_works_in_separate_process(run_cli: CliRunner, seeded: Database) -> None:
    result = run_cli("samples", "list", "--limit", "1", database=seeded)
    assert result.code == 0
    assert result.out.startswith("id\tprivate_identifier\tpublic_identifier\t")


# show


def test_show_keys_are_stable(cli: Cli, seeded: Database) -> None:
    with seeded.begin() as session:
        session.add(
            Accession(sample_id=1, accession_type=AccessionType.GISAID_ISL, accession="EPI_ISL_1")
        )
    row = cli("samples", "show", "1", "-o", "json").json[0]
    assert list(row) == SHOW_KEYS
    assert row["group"] == {
        "id": 1,
        "name": "Redwood County Public Health Laboratory",
        "prefix": "RCPHL",
    }
    assert list(row["pathogen"]) == ["id", "slug", "name"]
    assert list(row["uploaded_by"]) == ["id", "name", "email"]
    assert list(row["collection_location"]) == ["id", "region", "country", "division", "location"]
    assert row["accessions"] == [{"accession_type": "GISAID_ISL", "accession": "EPI_ISL_1"}]
    assert list(row["genome"]) == [
        "length",
        "upload_date",
        "sequencing_depth",
        "sequencing_date",
        "num_unambiguous_sites",
        "num_missing_alleles",
        "num_mixed",
    ]
    assert row["genome"]["length"] == 29_903
    assert row["lineages"][0]["lineage"] == "B.1"
    assert row["lineages"][0]["lineage_type"] == "PANGOLIN"
    assert row["qc_metrics"][0]["qc_status"] == "good"


@pytest.mark.parametrize(
    ("key", "by"),
    [
        ("2", "id"),
        ("RCPHL-0000002", "private_identifier"),
        ("hCoV-19/USA/CA-RCPHL-2/2020", "public_identifier"),
    ],
)
def test_show_names_field_that_matched(cli: Cli, key: str, by: str) -> None:
    row = cli("samples", "show", key, "-o", "json").json[0]
    assert (row["id"], row["matched_by"]) == (2, by)


def test_show_keeps_given_order_and_drops_duplicates(cli: Cli) -> None:
    ended = cli("samples", "show", "3", "RCPHL-0000001", "2", "RCPHL-0000003")
    assert ended.ids == [3, 1, 2]


def test_show_names_all_missing_samples_and_shows_none(cli: Cli) -> None:
    ended = cli("samples", "show", "1", "nope", "RCPHL-0000002", "neither")
    assert (ended.code, ended.out) == (6, "")
    assert "'nope', 'neither'" in ended.err
    assert "RCPHL-0000002" not in ended.err


def test_show_of_name_in_two_groups_requires_group(cli: Cli, add_sample: AddSample) -> None:
    first, second = add_sample(submitting_group_id=2), add_sample(submitting_group_id=3)
    ended = cli("samples", "show", "LAB-1")
    assert (ended.code, ended.out) == (2, "")
    assert f"sample {first} (group Bayside Department of Public Health)" in ended.err
    assert "--group" in ended.err
    assert cli("samples", "show", "LAB-1", "--group", "VSUV").ids == [second]
    assert cli("samples", "show", "LAB-1", "--org", "2").ids == [first]


def test_show_of_private_identifier_like_id_requires_by(cli: Cli, add_sample: AddSample) -> None:
    mine = add_sample(private_identifier="7")
    assert cli("samples", "show", "7").code == 2
    assert cli("samples", "show", "7", "--by", "id").ids == [7]
    assert cli("samples", "show", "7", "--by", "private_identifier").ids == [mine]


def test_show_reads_number_with_leading_zeros_as_identifier(
    cli: Cli, add_sample: AddSample
) -> None:
    mine = add_sample(private_identifier="0007")
    assert cli("samples", "show", "0007").ids == [mine]


@pytest.mark.parametrize("key", ["9" * 5000, "2147483648", "²", "-1"])
def test_show_of_invalid_id_exits_with_6(cli: Cli, key: str) -> None:
    assert cli("samples", "show", "--", key).code == 6


def test_show_works_without_location_and_genome(cli: Cli, add_sample: AddSample) -> None:
    mine = add_sample(location_id=None)
    row = cli("samples", "show", str(mine), "-o", "json").json[0]
    assert row["location"] is None
    assert row["genome"] is None
    assert row["lineages"] == []


def test_show_table_contains_nested_values_as_text(cli: Cli) -> None:
    ended = cli("samples", "show", "1", "2", "-o", "table")
    assert "id: 1, name: Redwood County Public Health Laboratory, prefix: RCPHL" in ended.out
    assert "lineage: B.1" in ended.out
    assert "{" not in ended.out
    assert ended.out.count("Private identifier") == 2
