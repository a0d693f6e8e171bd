from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError, OperationalError

from aspen.database import engine as committing
from aspen.database.bulk.run import BulkRun
from aspen.database.bulk.spec import RowRequest
from aspen.database.engine import Database
from aspen.database.errors import OutcomeUnknownError, RowsMovedError
from aspen.database.settings import Limits
from tests.cli.commands.mapping_lab import Lab
from tests.database.rename_lab import Line, Row, planned, problems, requests, undo_into, undo_rows

ABCDE = {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}


@dataclass(frozen=True)
class Bench:
    """A database for all tests of this module; each test creates its own groups."""

    lab: Lab
    database: Database

    def names(self, group: int) -> dict[str, str]:
        names = self.lab.names(group)
        assert not [name for name in names.values() if name.startswith("\x01")]
        return names

    def execute(self, statement: str, **values: Any) -> None:
        with self.lab.engine.begin() as connection:
            connection.execute(sa.text(statement), values)


@pytest.fixture(scope="module")
def bench(
    postgres: Any, _migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    name = postgres.create(template=_migrated_template)
    database = Database(postgres.url(name), application_name="renames", writable=True)
    yield Bench(Lab(postgres.url(name), tmp_path_factory.mktemp("lab")), database)
    database.dispose()
    postgres.drop(name)


@pytest.fixture
def group(bench: Bench) -> int:
    return bench.lab.group(ABCDE)


@pytest.fixture
def undo(tmp_path: Path) -> Path:
    return tmp_path / "undo.csv"


def apply(bench: Bench, group: int, rows: Sequence[Row], undo: Path) -> None:
    with planned(bench.database, group, requests(rows)) as (run, plan):
        assert not problems(run)
        assert plan.problems == 0
        assert run.apply(undo_into(undo)) == undo


@pytest.mark.parametrize(
    ("rows", "detours"),
    [
        ([("A", "2"), ("B", "1")], 2),
        ([("A", "2"), ("B", "3"), ("C", "1")], 3),
        ([("A", "2"), ("B", "3"), ("C", "9")], 2),
        ([("C", "9"), ("B", "3"), ("A", "2")], 2),
        ([("A", "8"), ("B", "9")], 0),
        ([("A", "2"), ("B", "1"), ("C", "4"), ("D", "5"), ("E", "9")], 4),
    ],
    ids=["swap", "cycle", "chain", "chain from its end", "new names", "swap and chain"],
)
def test_rename_handles_swaps_cycles_and_chains_in_one_run(
    rows: list[Row], detours: int, bench: Bench, group: int, undo: Path
) -> None:
    with planned(bench.database, group, requests(rows)) as (run, plan):
        assert (plan.to_change, plan.already, plan.detours) == (len(rows), 0, detours)
        run.apply(undo_into(undo))
    assert bench.names(group) == ABCDE | dict(rows)
    assert undo_rows(undo) == [(lab, new, ABCDE[lab]) for lab, new in rows]


def test_identifier_used_in_another_group_is_available(bench: Bench, undo: Path) -> None:
    other, mine = bench.lab.group({"X": "taken"}), bench.lab.group({"A": "1"})
    apply(bench, mine, [("A", "taken")], undo)
    assert (bench.names(mine), bench.names(other)) == ({"A": "taken"}, {"X": "taken"})


def test_repeated_rename_changes_nothing(bench: Bench, group: int, undo: Path) -> None:
    rows = [("A", "2"), ("B", "1"), ("C", "9")]
    apply(bench, group, rows, undo)
    with planned(bench.database, group, requests(rows)) as (_run, plan):
        assert (plan.to_change, plan.already, plan.problems) == (0, 3, 0)


def test_apply_is_refused_with_problems_or_read_only_database(
    bench: Bench, group: int, undo: Path
) -> None:
    with planned(bench.database, group, requests([("A", "2")])) as (run, plan):
        assert plan.problems == 1
        with pytest.raises(RuntimeError, match="without problems"):
            run.apply(undo_into(undo))
    reading = Database(bench.lab.address)
    with (
        planned(reading, group, requests([("A", "9")])) as (run, _plan),
        pytest.raises(RuntimeError, match="may write"),
    ):
        run.apply(undo_into(undo))
    reading.dispose()
    assert bench.names(group) == ABCDE


def test_no_transaction_is_open_between_plan_and_apply(bench: Bench, group: int) -> None:
    query = (
        "SELECT state FROM pg_stat_activity "
        "WHERE datname = current_database() AND application_name = 'renames'"
    )
    with planned(bench.database, group, requests([("A", "9")] * 1)) as (run, _plan):
        next(run.rows())  # leaves the rest unread
        with bench.lab.engine.connect() as other:
            assert set(other.scalars(sa.text(query))) == {"idle"}


def test_identifiers_with_special_characters_are_written_exactly(
    bench: Bench, tmp_path: Path
) -> None:
    odd = ["\\N", "a\\tb", "=1", "'=1", "''", 'é, "x"', " a ", "x" * 300, "tab\there", "l\nf\r"]
    group = bench.lab.group({f"lab{text}": text for text in odd})
    rows = [(f"lab{text}", f"new{text}") for text in odd]
    asked = [RowRequest(line, lab, (new,), (new[3:],)) for line, (lab, new) in enumerate(rows)]
    with planned(bench.database, group, asked) as (run, _plan):
        run.apply(undo_into(tmp_path / "undo.csv"))
    assert bench.names(group) == dict(rows)


# Undo file and commit


def test_undo_file_is_complete_and_synced_before_commit(
    bench: Bench, group: int, undo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aspencli.changes.undo import UndoOrigin, read_origin, write_undo

    synced: set[int] = set()
    sync = os.fsync

    def note(descriptor: int) -> None:
        sync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", note)
    origin = UndoOrigin("local", group, "now", 2)
    seen: list[Mapping[str, str]] = []

    def look() -> None:
        assert read_origin(str(undo)) == origin
        header, *rows = undo.read_text().splitlines()[1:]
        assert header == "private_identifier,new_public_identifier,old_public_identifier,id"
        assert [row.rpartition(",")[0] for row in rows] == ["A,2,1", "B,1,2"]
        assert {undo.stat().st_ino, undo.parent.stat().st_ino} <= synced
        seen.append(bench.names(group))

    with planned(bench.database, group, requests([("A", "2"), ("B", "1")])) as (run, _plan):
        run.apply(lambda rows: write_undo(undo.parent, origin, rows, undo), look)
    assert seen == [ABCDE]
    assert bench.names(group)["A"] == "2"


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_failure_before_commit_rolls_back_and_removes_undo_file(
    error: BaseException, bench: Bench, group: int, undo: Path
) -> None:
    def fail() -> None:
        assert undo.exists()
        raise error

    with (
        planned(bench.database, group, requests([("A", "2"), ("B", "1")])) as (run, _plan),
        pytest.raises(type(error)),
    ):
        run.apply(undo_into(undo), fail)
    assert bench.names(group) == ABCDE
    assert not undo.exists()


def test_unwritable_undo_file_rolls_back_rename(bench: Bench, group: int, tmp_path: Path) -> None:
    with (
        planned(bench.database, group, requests([("A", "2"), ("B", "1")])) as (run, _plan),
        pytest.raises(FileNotFoundError),
    ):
        run.apply(undo_into(tmp_path / "no" / "such" / "folder"))
    assert bench.names(group) == ABCDE


def test_connection_killed_before_commit_rolls_back_rename(
    bench: Bench, group: int, undo: Path
) -> None:
    def kill() -> None:
        bench.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'renames' AND state = 'idle in transaction' "
            "AND datname = current_database()"
        )

    with (
        planned(bench.database, group, requests([("A", "2"), ("B", "1")])) as (run, _plan),
        pytest.raises(DBAPIError),
    ):
        run.apply(undo_into(undo), kill)
    assert bench.names(group) == ABCDE
    assert not undo.exists()


@dataclass
class Way:
    """A database behind a proxy that breaks the connection at the commit."""

    line: Line
    database: Database


@pytest.fixture
def way(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Way]:
    url = sa.make_url(bench.lab.address)
    line = Line(url.host or "", url.port or 0, forward=request.param)
    address = url.set(host="127.0.0.1", port=line.port)
    way = Way(line, Database(address, application_name="renames", writable=True))
    yield way
    assert line.has_broken
    way.database.dispose()
    line.join()


@pytest.mark.parametrize("way", [True], indirect=True, ids=[""])
def test_commit_without_answer_is_confirmed_by_transaction_status(
    way: Way, bench: Bench, group: int, undo: Path
) -> None:
    with planned(way.database, group, requests([("A", "2"), ("B", "1")])) as (run, _plan):
        assert run.apply(undo_into(undo), way.line.armed.set) == undo
    assert bench.names(group) == ABCDE | {"A": "2", "B": "1"}
    assert len(undo_rows(undo)) == 2


@pytest.mark.parametrize("way", [False], indirect=True, ids=[""])
def test_commit_that_never_reaches_server_is_reported_as_failed(
    way: Way, bench: Bench, group: int, undo: Path
) -> None:
    with (
        planned(way.database, group, requests([("A", "2"), ("B", "1")])) as (run, _plan),
        pytest.raises(DBAPIError),
    ):
        run.apply(undo_into(undo), way.line.armed.set)
    assert bench.names(group) == ABCDE
    assert not undo.exists()


@pytest.mark.parametrize("way", [True], indirect=True, ids=[""])
def test_commit_without_answer_is_unknown_if_server_is_unreachable(
    way: Way, bench: Bench, group: int, undo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committing, "_LOOK_UP_S", (0.01, 0.01))
    way.line.then = way.line.close
    with (
        planned(way.database, group, requests([("A", "9")])) as (run, _plan),
        pytest.raises(OutcomeUnknownError) as caught,
    ):
        run.apply(undo_into(undo), way.line.armed.set)
    assert caught.value.undo_file == undo
    assert undo_rows(undo) == [("A", "9", "1")]
    with bench.lab.engine.connect() as connection:
        status = sa.text("SELECT txid_status(:id)")
        assert connection.scalar(status, {"id": caught.value.transaction}) == "committed"


# Concurrent changes


def renamed(bench: Bench, group: int) -> None:
    bench.lab.rename(group, "B", "meanwhile")


def deleted(bench: Bench, group: int) -> None:
    bench.execute(
        "DELETE FROM aspen.samples WHERE submitting_group_id = :g AND private_identifier = 'B'",
        g=group,
    )


def moved_away(bench: Bench, group: int) -> None:
    other = bench.lab.group({})
    bench.execute(
        "UPDATE aspen.samples SET submitting_group_id = :other "
        "WHERE submitting_group_id = :g AND private_identifier = 'B'",
        other=other,
        g=group,
    )


def relabelled(bench: Bench, group: int) -> None:
    bench.execute(
        "UPDATE aspen.samples SET private_identifier = 'b' "
        "WHERE submitting_group_id = :g AND private_identifier = 'B'",
        g=group,
    )


def taken(bench: Bench, group: int) -> None:
    bench.lab.rename(group, "E", "9")


def settled(bench: Bench, group: int) -> None:
    bench.lab.rename(group, "D", "meanwhile")


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (renamed, 'line 3: sample "B" is now named "meanwhile", expected "2"'),
        (deleted, 'line 3: sample "B" was deleted'),
        (moved_away, 'line 3: sample "B" was moved to another group'),
        (relabelled, 'line 3: sample "B" was renamed to "b"'),
        (taken, 'line 4: "9" is now used by sample "E"'),
        (settled, 'line 5: sample "D" is now named "meanwhile", expected "4"'),
    ],
)
@pytest.mark.parametrize("last", ["3", "C-new"], ids=["plain", "swap"])
def test_concurrent_change_of_planned_row_is_conflict(
    happens: Callable[[Bench, int], None],
    told: str,
    last: str,
    bench: Bench,
    group: int,
    undo: Path,
) -> None:
    first = [("A", "2"), ("B", "1")] if last == "3" else [("A", "8"), ("B", "7")]
    rows = [*first, ("C", "9"), ("D", "4")]  # the last is unchanged
    with planned(bench.database, group, requests(rows)) as (run, plan):
        assert (plan.to_change, plan.already) == (3, 1)
        happens(bench, group)
        now = bench.names(group)
        with pytest.raises(RowsMovedError) as caught:
            run.apply(undo_into(undo))
    assert (caught.value.rows, caught.value.total) == ((told,), 1)
    assert bench.names(group) == now
    assert not undo.exists()


def test_conflict_lists_200_rows_and_counts_all(bench: Bench, undo: Path) -> None:
    names = {f"L{n}": f"P{n}" for n in range(300)}
    group = bench.lab.group(names)
    rows = [(lab, f"new{lab}") for lab in names]
    with planned(bench.database, group, requests(rows)) as (run, _plan):
        bench.execute(
            "UPDATE aspen.samples SET public_identifier = 'x' || id WHERE submitting_group_id = :g",
            g=group,
        )
        with pytest.raises(RowsMovedError) as caught:
            run.apply(undo_into(undo))
    assert (len(caught.value.rows), caught.value.total) == (200, 300)


def test_apply_locks_only_requested_rows(bench: Bench, group: int, undo: Path) -> None:
    other = bench.lab.group(ABCDE)
    update = sa.text(
        "UPDATE aspen.samples SET public_identifier = 'theirs' "
        "WHERE submitting_group_id = :g AND private_identifier = :lab"
    )

    def write(where: int, lab: str) -> None:
        with bench.lab.engine.begin() as connection:
            connection.execute(sa.text("SET lock_timeout = '200ms'"))
            connection.execute(update, {"g": where, "lab": lab})

    def try_all() -> None:
        write(other, "A")
        write(group, "E")
        for lab in ("A", "D"):  # one that changes, and one that is unchanged
            with pytest.raises(OperationalError, match="lock timeout"):
                write(group, lab)

    rows = [("A", "2"), ("B", "1"), ("D", "4")]
    with planned(bench.database, group, requests(rows)) as (run, _plan):
        run.apply(undo_into(undo), try_all)
    assert bench.names(other)["A"] == "theirs"
    assert bench.names(group) == ABCDE | {"A": "2", "B": "1", "E": "theirs"}


@pytest.mark.parametrize(
    ("patience_ms", "error"), [(200, OperationalError), (20_000, RowsMovedError)]
)
def test_concurrent_run_on_same_sample_waits_for_first(
    patience_ms: int, error: type[Exception], bench: Bench, group: int, tmp_path: Path
) -> None:
    patient = Database(bench.lab.address, writable=True, limits=Limits(lock_ms=patience_ms))
    outcome: list[BaseException] = []

    def second(run: BulkRun) -> None:
        try:
            run.apply(undo_into(tmp_path / "second.csv"))
        except error as caught:
            outcome.append(caught)

    with (
        planned(bench.database, group, requests([("A", "8")])) as (run, _plan),
        planned(patient, group, requests([("A", "9")])) as (late, _late_plan),
    ):
        thread = threading.Thread(target=second, args=(late,))

        def start_second() -> None:
            thread.start()
            thread.join(timeout=0.5 if error is RowsMovedError else 10)
            assert thread.is_alive() == (error is RowsMovedError)

        run.apply(undo_into(tmp_path / "first.csv"), start_second)
        thread.join(timeout=10)
    patient.dispose()
    assert len(outcome) == 1
    assert bench.names(group)["A"] == "8"
    assert not (tmp_path / "second.csv").exists()


# Against a simple model of the rules

LABS, PUBLICS = [*ABCDE, "unknown"], [*ABCDE.values(), "6", "7"]
ANY_ROWS = st.lists(st.tuples(st.sampled_from(LABS), st.sampled_from(PUBLICS)), max_size=7)
SHUFFLED = st.permutations(PUBLICS).flatmap(
    lambda publics: st.sets(st.sampled_from("ABCDE")).map(
        lambda labs: [row for row in zip("ABCDE", publics, strict=False) if row[0] in labs]
    )
)
MEANWHILE = st.dictionaries(st.sampled_from("ABCDE"), st.sampled_from(["6", "7", "8", "9"]))


def expected_problems(names: Mapping[str, str], rows: Sequence[Row]) -> set[tuple[int, str]]:
    """Return the line and column of each expected problem."""
    freed = {lab for lab, public in rows if lab in names and names[lab] != public}
    found = set()
    for line, (lab, public) in enumerate(rows, start=2):
        before = rows[: line - 2]
        holders = [each for each, name in names.items() if name == public and each != lab]
        if lab not in names or lab in [row[0] for row in before]:
            found.add((line, "private_identifier"))
        if public in [row[1] for row in before] or set(holders) - freed:
            found.add((line, "public_identifier"))
    return found


def expected_undo(
    names: Mapping[str, str], wrote: Sequence[tuple[str, str, str]]
) -> tuple[dict[str, str], set[str]]:
    """Return the names after the undo, and the samples that it skips."""
    rows = {lab: old for lab, new, old in wrote if names[lab] in {new, old}}
    while True:
        freed = {lab for lab, old in rows.items() if names[lab] != old}
        stuck = {
            lab
            for lab, old in rows.items()
            for other, name in names.items()
            if name == old and other != lab and other not in freed
        }
        if not stuck:
            return {**names, **rows}, {lab for lab, _new, _old in wrote} - set(rows)
        rows = {lab: old for lab, old in rows.items() if lab not in stuck}


@given(rows=st.one_of(ANY_ROWS, SHUFFLED), meanwhile=MEANWHILE)
@settings(max_examples=150, deadline=None)
def test_plan_apply_and_undo_match_reference_model(
    rows: list[Row],
    meanwhile: dict[str, str],
    bench: Bench,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    group = bench.lab.group(ABCDE)
    undo = tmp_path_factory.getbasetemp() / "undo.csv"
    with planned(bench.database, group, requests(rows)) as (run, plan):
        found = {(problem.line, problem.column) for problem in problems(run)}
        assert found == expected_problems(ABCDE, rows)
        if found:
            assert plan.problems >= len(found)
            return
        assert plan.to_change == sum(ABCDE[lab] != public for lab, public in rows)
        assert plan.already == len(rows) - plan.to_change
        run.apply(undo_into(undo))
    names = bench.names(group)
    assert names == ABCDE | dict(rows)

    for lab, public in meanwhile.items():
        if public not in names.values():
            bench.lab.rename(group, lab, public)
            names[lab] = public
    wrote = undo_rows(undo)
    asked = [
        RowRequest(line, lab, (old,), (new,)) for line, (lab, new, old) in enumerate(wrote, start=3)
    ]
    with planned(bench.database, group, asked, skip_moved=True) as (run, plan):
        then, alone = expected_undo(names, wrote)
        assert plan.problems == 0
        assert {wrote[each.line - 3][0] for each in run.left_out()} == alone
        run.apply(undo_into(undo))
    assert bench.names(group) == then


def test_undo_plan_skips_long_blocked_chain_quickly(bench: Bench) -> None:
    """Each sample waits for the name of the one before, and another sample holds the first's."""
    count = 20_000
    held = {f"L{n}": f"P{n + 1}" for n in range(count)}
    group = bench.lab.group({**held, "other": "P0"})
    asked = [RowRequest(n + 3, f"L{n}", (f"P{n}",), (f"P{n + 1}",)) for n in range(count)]
    began = time.monotonic()
    with planned(bench.database, group, asked, skip_moved=True) as (_run, plan):
        assert (plan.to_change, plan.left_out) == (0, count)
    assert time.monotonic() - began < 100  # not one round per sample


def test_update_uses_primary_key_index_with_stale_statistics(
    migrated_db: str, tmp_path: Path
) -> None:
    lab = Lab(migrated_db, tmp_path)
    lab.execute("ALTER TABLE aspen.samples SET (autovacuum_enabled = off)")
    for number in range(50):
        lab.group({f"S-{number}-{sample}": f"T-{number}-{sample}" for sample in range(20)})
    lab.execute("ANALYZE aspen.samples")
    new = lab.group({f"L-{sample}": f"P-{sample}" for sample in range(3_000)})
    lines: list[str] = []

    def explain(
        _connection: Any, cursor: Any, statement: str, parameters: Any, *_others: Any
    ) -> None:
        if statement.lstrip().startswith("UPDATE aspen.samples"):
            cursor.execute(f"EXPLAIN {statement}", parameters)
            lines.extend(line for (line,) in cursor.fetchall())

    database = Database(migrated_db, application_name="renames", writable=True)
    rows = [(f"L-{sample}", f"N-{sample}") for sample in range(3_000)]
    sa.event.listen(sa.Engine, "before_cursor_execute", explain)
    try:
        with planned(database, new, requests(rows)) as (run, _plan):
            run.apply(undo_into(tmp_path / "undo.csv"))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", explain)
        database.dispose()
    found = [line.strip() for line in lines if "Scan" in line and " samples " in line]
    assert found, lines
    assert all(line.startswith("->  Index Scan using pk_samples") for line in found), "\n".join(
        lines
    )
