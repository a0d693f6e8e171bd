"""``aspencli samples create``, through the API."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import homes, params
from aspencli.cli import examples
from aspencli.commands import api_options as options
from aspencli.commands import bulk_options
from aspencli.context import AppContext, current
from aspencli.errors import BadInputError
from aspencli.services.opening import STDIN

if TYPE_CHECKING:
    from aspencli.services.decoding import Fault
    from aspencli.services.new_samples import Wanted
    from aspencli.services.places import Gazetteer


_LETTERS = re.compile(r"[A-Za-z*?\s-]+").fullmatch


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
        str | None,
        typer.Option(
            "--fasta",
            "--sequence-file",
            metavar="FILE",
            help="The sequences (FASTA, perhaps compressed), called by private identifiers; "
            "- for stdin.",
        ),
    ] = None,
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
    sequence: Annotated[
        str | None,
        typer.Option(metavar="LETTERS", help="Instead of --fasta: the sequence of one sample."),
    ] = None,
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
    encoding: bulk_options.Encoding = None,
    delimiter: bulk_options.Delimiter = None,
    sheet: bulk_options.Sheet = None,
    template: bulk_options.TemplateName = "auto",
    skip_lines: bulk_options.SkipLines = 0,
    date_format: bulk_options.DateFormat = None,
    missing_words: bulk_options.MissingWords = False,
    dry_run: params.DryRunOption = False,
    group: options.Group = None,
    pathogen: options.Pathogen = None,
) -> None:
    """Create samples with their sequences.

    Everything is looked at before the first is sent. They go some at a time, each time all or none;
    after an interruption, --skip-existing goes on.
    """
    from aspencli.commands.api_scope import chosen_scope
    from aspencli.commands.creating import Batch
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
    _check_sources(fasta, sequence, metadata, given)
    scope = chosen_scope(context, group, pathogen, writing=True)
    places = Gazetteer(context.api().locations)
    faults: list[Fault] = []
    with ExitStack() as stack:
        path = stack.enter_context(_file(fasta) if fasta else _written(sequence or ""))
        if metadata is None:
            wanted = _one(
                context, given, path, faults, places, private=private, missing_words=missing_words
            )
        else:
            reading = _Reading(metadata, encoding, delimiter, sheet, template, skip_lines)
            chosen = bulk_options.chosen_names(context, names)
            wanted = _table(
                *(context, reading, chosen, faults, places, date_format),
                private=private,
                missing_words=missing_words,
            )
        batch = Batch(context, scope, path, wanted, places)
        batch.check(faults)
        batch.create(skip_existing=skip_existing, dry_run=dry_run)


@dataclass(frozen=True)
class _Reading:
    """The options for reading the table; see `aspencli.services.tables.open_table`."""

    path: str
    encoding: str | None
    delimiter: str | None
    sheet: str | None
    template: str
    skip_lines: int


def _check_sources(
    fasta: str | None, sequence: str | None, metadata: str | None, given: dict[str, str]
) -> None:
    if (fasta is None) == (sequence is None):
        raise BadInputError(
            "No sequence was given" if fasta is None else "Both --fasta and --sequence were given",
            hint="Give --fasta FILE, or --sequence for one sample.",
        )
    if sequence is not None and metadata is not None:
        raise BadInputError(
            "--sequence is for one sample, and --metadata is a table of them",
            hint="Give --fasta FILE with the table.",
        )
    if (metadata is None) == (not given):
        raise BadInputError(
            "it was not said what the samples are"
            if metadata is None
            else "a table was given, and options for one sample too",
            hint="Give --metadata FILE, or --private-identifier, --collection-date and --location.",
        )
    if fasta == STDIN == metadata:
        raise BadInputError("both files are stdin", hint="Name one of them.")


@contextmanager
def _written(sequence: str) -> Iterator[Path]:
    """Provide a sequence from the command line as a FASTA file; use a file name as is."""
    named = Path(sequence).expanduser()
    if not _LETTERS(sequence) and not sequence.startswith(">") and named.is_file():
        yield named
        return
    with tempfile.NamedTemporaryFile("w", prefix="aspencli-", suffix=".fasta") as kept:
        kept.write(sequence if sequence.startswith(">") else f">sequence\n{sequence}\n")
        kept.flush()
        yield Path(kept.name)


def _is_stream(path: Path) -> bool:
    try:
        kind = path.stat().st_mode
    except OSError:
        return False  # reported when it is read
    return (stat.S_ISFIFO(kind) or stat.S_ISCHR(kind)) and os.access(path, os.R_OK)


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """Provide a file that can be read twice, by copying a pipe to a temporary file."""
    path = homes.expand(name)
    if name != STDIN and not _is_stream(path):
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="aspencli-", suffix=".fasta") as kept:
        with nullcontext(sys.stdin.buffer) if name == STDIN else path.open("rb") as source:
            shutil.copyfileobj(source, kept)
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
    missing_words: bool,
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
        0,
        {**cells, "sequence_name": headers[0]},
        faults.append,
        places,
        private=private,
        missing_words=missing_words,
    )
    return [found] if found else []


def _table(
    context: AppContext,
    reading: _Reading,
    names: Sequence[str],
    faults: list[Fault],
    places: Gazetteer,
    date_format: str | None,
    *,
    private: bool,
    missing_words: bool,
) -> list[Wanted]:
    from aspencli.services.dates import DayFormat
    from aspencli.services.new_samples import read_wanted
    from aspencli.services.tables import open_table

    days = DayFormat(date_format) if date_format is not None else None
    with open_table(
        reading.path,
        encoding=reading.encoding,
        delimiter=bulk_options.chosen_delimiter(reading.delimiter),
        sheet=reading.sheet,
        skip_lines=reading.skip_lines,
        template=reading.template,
    ) as source:
        said = bulk_options.say_notes(context.out, source)
        found = read_wanted(
            source,
            faults.append,
            places,
            private=private,
            names=names,
            missing_words=missing_words,
            days=days,
        )
        bulk_options.say_notes(context.out, source, said)
    return found
