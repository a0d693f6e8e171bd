"""``--columns``: the fields of a result that are shown, in every format and from both backends."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from aspen.database.engine import Database
from aspencli.cli.output.console import Output
from aspencli.cli.output.formats import titled

if TYPE_CHECKING:
    from tests.cli.commands.api_lab import ApiLab
    from tests.cli.commands.conftest import Cli
    from tests.conftest import CliRunner

CHOSEN = ["private_identifier", "id", "private"]
LIST = ("samples", "list", "--columns", ",".join(CHOSEN))


def _read(form: str, text: str) -> list[dict[str, Any]]:
    if form == "json":
        found: list[dict[str, Any]] = json.loads(text)
        return found
    if form == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(
        csv.DictReader(io.StringIO(text), dialect="excel" if form == "csv" else "excel-tab")
    )


@pytest.mark.parametrize("form", ["json", "jsonl", "csv", "tsv"])
def test_columns_are_chosen_and_ordered_in_machine_formats(cli: Cli, form: str) -> None:
    whole = _read(form, cli("samples", "list", "-o", form).out)
    found = _read(form, cli(*LIST, "-o", form).out)
    assert len(found) == 60
    assert list(found[0]) == CHOSEN
    assert found == [{name: row[name] for name in CHOSEN} for row in whole]


def test_columns_are_chosen_and_ordered_in_table(cli: Cli) -> None:
    heading, first, *_ = cli(*LIST, "-o", "table", "--limit", "2").out.splitlines()
    assert heading.split() == ["Private", "ID", "Id", "Private"]
    assert len(first.split()) == 3


def test_chosen_column_is_shown_on_narrow_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    names = "private_identifier,public_identifier,location,uploaded_by"
    ended = cli("samples", "list", "--columns", names, "-o", "table", "--limit", "1")
    assert "Columns hidden" not in ended.err
    assert "Uploaded by" in ended.out
    assert "Location" in ended.out


def test_columns_are_the_same_from_both_backends(shared_lab: ApiLab) -> None:
    words = ("samples", "list", "--group", "1", "--columns", "public_identifier,id", "-o", "jsonl")
    database, api = shared_lab(*words, "--via", "db"), shared_lab(*words, "--via", "api")
    assert database.code == api.code == 0
    assert database.out == api.out
    assert list(json.loads(api.out.splitlines()[0])) == ["public_identifier", "id"]


@pytest.mark.parametrize("words", [("--columns", "id,groop"), ("--columns=groop,id",)])
def test_unknown_column_is_refused_with_list_of_columns(cli: Cli, words: tuple[str, ...]) -> None:
    ended = cli("samples", "list", *words)
    assert (ended.code, ended.out) == (2, "")
    assert "Error: Unknown column: groop" in ended.err
    assert "Did you mean group? Choose from: id, private_identifier, public_identifier, group," in (
        ended.err
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [("id,id", "id was given twice"), ("id,,group", "a name is empty"), ("", "a name is empty")],
)
def test_unclear_choice_of_columns_is_refused(cli: Cli, given: str, message: str) -> None:
    ended = cli("samples", "list", "--columns", given)
    assert ended.code == 2
    assert f"Invalid value for --columns: {message}" in ended.err


@pytest.mark.parametrize("words", [("db", "psql"), ("samples", "download", "x"), ("version",)])
def test_command_without_rows_refuses_columns(cli: Cli, words: tuple[str, ...]) -> None:
    ended = cli("--columns", "id", *words)
    assert (ended.code, ended.out) == (2, "")
    assert "which prints no rows" in ended.err


def test_unknown_column_is_refused_before_anything_is_written(cli: Cli) -> None:
    person = ("--name", "New", "--email", "new@example.org", "--auth0-user-id", "auth0|new")
    words = ("users", "create", *person, "--group", "1", "--yes", "-o", "json")
    assert cli(*words, "--columns", "id,mail").code == 2
    assert cli("users", "show", "new@example.org").code == 6
    made = cli(*words, "--columns", "outcome,email")
    assert made.json == [{"outcome": "created", "email": "new@example.org"}]


def test_plan_and_result_have_the_same_chosen_columns(cli: Cli, tmp_path: Any) -> None:
    rows = cli("samples", "list", "--group", "1", "-o", "json").json[:2]
    names = [row["private_identifier"] for row in rows]
    file = tmp_path / "ids.csv"
    file.write_text(
        "private_identifier,public_identifier\n" + "".join(f"{n},{n}-x\n" for n in names)
    )
    words = ("samples", "update-public-ids", "--group-id", "1", "-f", str(file), "--yes")
    chosen = ("--columns", "outcome,private_identifier,run", "-o", "json")
    plan = cli(*words, "--dry-run", *chosen)
    assert [list(row) for row in plan.json] == [["outcome", "private_identifier", "run"]] * 2
    assert [row["run"] for row in plan.json] == [None, None]
    (result,) = cli(*words, *chosen).json
    assert list(result) == ["outcome", "private_identifier", "run"]
    assert result["outcome"] == "updated"
    assert result["run"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("config", "show"), "source,name"),
        (("db", "doctor"), "check,verdict"),
        (("target", "list"), "way,name"),
        (("db", "settings"), "remark,name"),
    ],
)
def test_chosen_columns_make_a_table_of_free_layouts(
    cli: Cli, words: tuple[str, ...], names: str
) -> None:
    table = cli(*words, "--columns", names, "-o", "table").out.splitlines()
    rows = cli(*words, "--columns", names, "-o", "jsonl").out.splitlines()
    assert len(table) == 1 + len(rows)


def test_json_document_refuses_columns_before_it_runs(cli: Cli) -> None:
    ended = cli("db", "profile", "--sql", "SELECT 1", "-o", "json", "--columns", "calls")
    assert (ended.code, ended.out) == (2, "")
    assert "Select its parts with --jq." in ended.err
    shown = cli("db", "profile", "--sql", "SELECT 1", "-o", "csv", "--columns", "query,calls")
    assert shown.out == "query,calls\nSELECT ?,1\n"


def test_completion_offers_columns_that_are_not_chosen_yet(
    run_cli: CliRunner, seeded: Database
) -> None:
    words = "aspencli samples list --columns id,p"
    env = {"_ASPENCLI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4"}
    ended = run_cli(env=env, database=seeded)
    assert ended.out.split() == [
        *("id,private_identifier", "id,public_identifier", "id,pathogen", "id,private"),
    ]


def test_chosen_columns_of_a_long_list_take_constant_memory() -> None:
    def rows() -> Iterator[_Row]:
        for number in range(20_000):
            yield _Row(number, "x" * 200, "y")

    columns = titled("id", "name", "aside")
    output = Output("jsonl", stdout=_Discarded(), columns=(columns[2], columns[0]))
    tracemalloc.start()
    output.rows(columns, rows())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # of 5 MB


class _Row(NamedTuple):
    """A row of a long list."""

    id: int
    name: str
    aside: str


class _Discarded(io.StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)
