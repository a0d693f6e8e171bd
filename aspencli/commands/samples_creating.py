"""``aspencli samples create``: through the API."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.commands import api_options as options
from aspencli.commands import bulk_options
from aspencli.commands.samples_editing import OUTCOME_COLUMNS, outcome_row
from aspencli.context import AppContext, current
from aspencli.errors import BadInputError, ConflictError
from aspencli.output.rendering import Column, Row

if TYPE_CHECKING:
    from aspencli.services.decoding import Fault
    from aspencli.services.new_samples import Wanted
    from aspencli.services.orgs import Scope
    from aspencli.services.places import Gazetteer

_SHOWN = 200
DEFAULT_PATHOGEN = "SC2"
_PREVIEW = (
    Column("line", "Line", right=True, whole=True),
    Column("private_identifier", "Private identifier", whole=True),
    Column("public_identifier", "Public identifier", whole=True),
    Column("collection_date", "Collected", whole=True),
    Column("private", "Private"),
)


def register(app: typer.Typer) -> None:
    """Add the command to the group ``samples``."""
    app.command(epilog=_EXAMPLES)(create)


_EXAMPLES = examples(
    "aspencli samples create --fasta batch.fasta --metadata batch.csv --dry-run",
    "aspencli samples create --fasta one.fasta --private-identifier LAB-0017 "
    "--collection-date 2023-05-17 --location 'North America / USA / California'",
)


def create(
    ctx: typer.Context,
    fasta: Annotated[
        str,
        typer.Option(
            "--fasta",
            "--sequence-file",
            metavar="FILE",
            help="The sequences (FASTA, also .gz), called by private identifiers; - for stdin.",
        ),
    ],
    metadata: Annotated[
        str | None,
        typer.Option(
            "--metadata",
            metavar="FILE",
            help="A table (CSV, TSV, .xlsx) with private_identifier, collection_date, location, "
            "and what else is known.",
        ),
    ] = None,
    names: bulk_options.Names = None,
    private_identifier: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Instead of a table: of one sample.")
    ] = None,
    public_identifier: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Of one sample. Default: the service makes one up."),
    ] = None,
    collection_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="Of one sample: a day.")
    ] = None,
    sequencing_date: Annotated[
        str | None, typer.Option(metavar="DATE", help="Of one sample: a day.")
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(
            "--location",
            "--location-id",
            metavar="ID|PLACE",
            help="Of one sample: id, or Region / Country / Division / Location.",
        ),
    ] = None,
    private: Annotated[
        bool,
        typer.Option("--private/--public", help="Whether other groups may not see them, or may."),
    ] = True,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Go on without those whose private one exists."),
    ] = False,
    dry_run: params.DryRunOption = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Create samples with their sequences.

    Everything is looked at before the first is sent. They go some at a time, each time all or none;
    after an interruption, --skip-existing goes on.
    """
    from aspencli.commands.api_scope import chosen_scope
    from aspencli.services.places import Gazetteer

    context = current(ctx)
    one = {
        "private_identifier": private_identifier,
        "public_identifier": public_identifier,
        "collection_date": collection_date,
        "sequencing_date": sequencing_date,
        "location": location,
    }
    given = {name: text for name, text in one.items() if text is not None}
    _check_sources(fasta, metadata, given)
    scope = chosen_scope(context, group, pathogen)
    places = Gazetteer(context.api().locations)
    faults: list[Fault] = []
    with ExitStack() as stack:
        path = stack.enter_context(_file(fasta))
        if metadata is None:
            wanted = _one(context, given, path, faults, places, private=private)
        else:
            wanted = _table(context, metadata, names or (), faults, places, private=private)
        _create(context, scope, path, wanted, faults, skip_existing=skip_existing, dry_run=dry_run)


def _check_sources(fasta: str, metadata: str | None, given: dict[str, str]) -> None:
    if (metadata is None) == (not given):
        raise BadInputError(
            "it was not said what the samples are"
            if metadata is None
            else "a table was given, and options for one sample too",
            hint="Give --metadata FILE, or --private-identifier, --collection-date and --location.",
        )
    if fasta == "-" == metadata:
        raise BadInputError("both files are stdin", hint="Name one of them.")


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """A file that can be read twice."""
    if name != "-":
        yield Path(name).expanduser()
        return
    with tempfile.NamedTemporaryFile(prefix="aspencli-", suffix=".fasta") as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        yield Path(kept.name)


def _one(
    context: AppContext,
    given: dict[str, str],
    path: Path,
    faults: list[Fault],
    places: Gazetteer,
    *,
    private: bool,
) -> list[Wanted]:
    from aspencli.commands.editing_input import told_day
    from aspencli.fasta import read_fasta
    from aspencli.services.new_samples import understand

    cells = {
        name: told_day(context, name, text) if name.endswith("_date") else text
        for name, text in given.items()
    }
    headers = [found.header for found in read_fasta(path)]
    if len(headers) != 1:
        raise BadInputError(
            f"{path} has {len(headers):,} sequences, and one sample has one",
            hint="Give a table of the samples: --metadata FILE.",
        )
    found = understand(
        0, {**cells, "sequence_name": headers[0]}, faults.append, places, private=private
    )
    return [found] if found else []


def _table(
    context: AppContext,
    metadata: str,
    names: Sequence[str],
    faults: list[Fault],
    places: Gazetteer,
    *,
    private: bool,
) -> list[Wanted]:
    from aspencli.services.new_samples import read_wanted
    from aspencli.services.tables import open_table

    with open_table(metadata) as source:
        said = bulk_options.say_notes(context.out, source)
        found = read_wanted(source, faults.append, places, private=private, names=names)
        bulk_options.say_notes(context.out, source, said)
    return found


def _create(
    context: AppContext,
    scope: Scope,
    path: Path,
    wanted: list[Wanted],
    faults: list[Fault],
    *,
    skip_existing: bool,
    dry_run: bool,
) -> None:
    from aspencli.commands.item_report import item_report
    from aspencli.services.new_samples import Sequences
    from aspencli.services.sample_creation import create_samples, taken_names

    foreign = Sequences(path, wanted).check(faults.append)
    _refuse(context, faults, foreign)
    existing = _existing(wanted, taken_names(context.api(), scope))
    if existing and not skip_existing:
        raise ConflictError(
            f"{_count(len(existing))} cannot be created: the group has such identifiers already",
            details=[f"line {one.line}: {one.private}" for one in existing[:_SHOWN]],
            hint="Give others new identifiers; or go on without them: --skip-existing.",
        )
    skipped = {one.line for one in existing}
    new = [one for one in wanted if one.line not in skipped]
    if existing:
        context.out.warn(f"left out, as they exist already: {_count(len(existing))}")
    _name_organism(context, scope, new)
    rows = [_row(one) for one in new]
    if dry_run or not new:
        context.out.rows(_PREVIEW, rows, empty="nothing to create")
        return
    context.out.preview(_PREVIEW, rows)
    context.authorise(f"create {_count(len(new))} of {scope}")
    with (
        item_report(context.out, OUTCOME_COLUMNS, len(new), "samples were created") as report,
        context.out.progress("Creating samples", len(new)) as tick,
    ):
        sequences = Sequences(path, new).samples()
        for some in create_samples(context.api().samples, scope, sequences):
            report += [outcome_row(sample, "created") for sample in some]
            tick(len(report))
    context.out.done(f"{_count(len(report))} created.")


def _name_organism(context: AppContext, scope: Scope, new: list[Wanted]) -> None:
    """Say what they are of: the service takes all for SARS-CoV-2 of which that is not said."""
    if scope.slug == DEFAULT_PATHOGEN:
        return
    name = next((p["name"] for p in context.api().pathogens() if p["slug"] == scope.slug), None)
    for one in new:
        if name is not None:
            one.fields.setdefault("organism", name)


def _refuse(context: AppContext, faults: list[Fault], foreign: list[str]) -> None:
    """Name everything that is wrong, if anything."""
    found = sorted(faults, key=lambda fault: fault.line)
    told = [
        " ".join(
            part
            for part in (
                f"line {fault.line}:" if fault.line else "",
                f"{fault.column}:" if fault.column else "",
                fault.reason,
            )
            if part
        )
        for fault in found
    ]
    told += [f"the sequence {name!r} is of no sample" for name in foreign]
    for line in told[:_SHOWN]:
        context.out.info(line)
    if len(told) > _SHOWN:
        context.out.info(f"and {len(told) - _SHOWN:,} more")
    if told:
        raise BadInputError(
            f"{len(told):,} problem{'' if len(told) == 1 else 's'}; nothing was created",
            hint="Mend what is named above, and run the command again.",
        )


def _existing(wanted: list[Wanted], taken: tuple[set[str], set[str]]) -> list[Wanted]:
    private, public = taken
    return [
        one
        for one in wanted
        if one.private in private or one.fields.get("public_identifier") in public
    ]


def _row(one: Wanted) -> Row:
    return {
        **{column.key: one.fields.get(column.key) for column in _PREVIEW},
        "line": one.line or None,
    }


def _count(number: int) -> str:
    return f"{number:,} sample{'' if number == 1 else 's'}"
