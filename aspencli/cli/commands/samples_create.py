"""``aspencli samples create``: samples from a table and a FASTA file, through the API.

Everything is checked before the preview, and nothing is sent before the confirmation.
"""

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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli import files
from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.changes import options
from aspencli.cli.changes.views import OUTCOME_COLUMNS, SHOWN, outcome_row
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import Column, Row, prints
from aspencli.errors import BadInputError, ConflictError
from aspencli.reference.remote import Gazetteer, Scope, name_of
from aspencli.samples.create import (
    Sequences,
    WantedSample,
    create_samples,
    read_wanted,
    taken_names,
    understand,
)
from aspencli.tabular.source import STDIN
from aspencli.tabular.table import Fault
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.cli.changes.execute import ItemChange

_DEFAULT_PATHOGEN = "SC2"
_LETTERS = re.compile(r"[A-Za-z*?\s-]+").fullmatch
_PREVIEW = (Column("line", "Line", right=True, whole=True), *OUTCOME_COLUMNS[1:-1])
_EXAMPLES = examples(
    "aspencli samples create --fasta batch.fasta --metadata batch.csv --dry-run",
    "aspencli samples create --fasta one.fasta --private-identifier LAB-0017 "
    "--collection-date 2023-05-17 --location 'North America / USA / California'",
)


def register(app: typer.Typer) -> None:
    """Add the command to the group ``samples``."""
    app.command(rich_help_panel="Change", epilog=_EXAMPLES)(create)


@dataclass(frozen=True, kw_only=True)
class SampleFields:
    """The options for a single sample."""

    private_identifier: Annotated[
        str | None, params.text_option("Private identifier of a single sample.")
    ] = None
    public_identifier: Annotated[
        str | None,
        params.text_option("Public identifier of a single sample. Default: generated."),
    ] = None
    collection_date: Annotated[
        str | None, params.text_option("Collection date of a single sample.", metavar="DATE")
    ] = None
    sequencing_date: Annotated[
        str | None, params.text_option("Sequencing date of a single sample.", metavar="DATE")
    ] = None
    location: Annotated[
        str | None,
        params.place_option(
            "Location of a single sample: an id, or Region / Country / Division / Location."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TableOptions(options.ReadingOptions):
    """The options for reading the samples of a table."""

    template: options.TemplateName = "auto"
    date_format: options.DateFormat = None
    private: Annotated[
        bool,
        typer.Option("--private/--public", help="Hide from, or show to, other groups."),
    ] = True


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The options for where the samples and their sequences come from."""

    fasta: Annotated[
        str | None,
        params.text_option(
            "FASTA file, optionally compressed, with private identifiers as sequence names; "
            "- for stdin.",
            *("--fasta", "--sequence-file"),
            metavar="FILE",
        ),
    ] = None
    metadata: Annotated[
        str | None,
        params.text_option(
            "Table (CSV, TSV, or .xlsx) with private_identifier, collection_date, location, "
            "and optional columns.",
            metavar="FILE",
        ),
    ] = None
    sequence: Annotated[
        str | None,
        params.text_option("Sequence of a single sample, instead of --fasta.", metavar="LETTERS"),
    ] = None

    def check(self, *, has_fields: bool) -> None:
        """Check that there is one source of sequences, and one of metadata.

        Raises:
            BadInputError: One is missing, or sources cannot be combined.
        """
        if (self.fasta is None) == (self.sequence is None):
            raise BadInputError(
                "Missing --fasta or --sequence."
                if self.fasta is None
                else "--fasta and --sequence cannot be combined.",
                hint="Pass --fasta FILE, or --sequence for a single sample.",
            )
        self._check_metadata(has_fields=has_fields)
        if self.fasta == STDIN == self.metadata:
            raise BadInputError(
                "--fasta and --metadata cannot both be stdin.", hint="Pass a file for one of them."
            )

    def _check_metadata(self, *, has_fields: bool) -> None:
        if self.sequence is not None and self.metadata is not None:
            raise BadInputError(
                "--sequence and --metadata cannot be combined.",
                hint="Use --fasta FILE with --metadata.",
            )
        if (self.metadata is None) != has_fields:
            raise BadInputError(
                "Missing sample metadata."
                if self.metadata is None
                else "--metadata cannot be combined with options for a single sample.",
                hint="Pass --metadata FILE, or --private-identifier, --collection-date, and "
                "--location.",
            )


@expanded
@prints(OUTCOME_COLUMNS)
def create(
    ctx: typer.Context,
    *,
    sources: SourceOptions,
    fields: SampleFields,
    reading: TableOptions,
    skip_existing: Annotated[
        bool,
        typer.Option("--skip-existing", help="Skip samples whose private identifier exists."),
    ] = False,
    dry_run: params.DryRunOption = False,
    scoped: params.ScopeOptions,
) -> None:
    """Create samples with their sequences.

    All input is validated before anything is sent. Samples are created in batches, and each batch
    is created in full or not at all. To continue after an interruption, use --skip-existing.
    """
    context = current(ctx)
    given = {name: text for name, text in vars(fields).items() if text is not None}
    sources.check(has_fields=bool(given))
    scope = params.chosen_scope(context, scoped, writing=True)
    places = Gazetteer(context.api().locations)
    faults: list[Fault] = []
    with ExitStack() as stack:
        opened = _file(sources.fasta) if sources.fasta else _written(sources.sequence or "")
        path = stack.enter_context(opened)
        if sources.metadata is None:
            wanted = _one(context, given, path, faults, places, reading)
        else:
            wanted = _table(context, sources.metadata, reading, faults, places)
        sequences = Sequences(path, wanted)
        _refuse(context, faults, sequences.check(faults.append))
        batch = Batch(context, scope, sequences, wanted, places)
        batch.create(skip_existing=skip_existing, dry_run=dry_run)


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
    path = files.expand(name)
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
    reading: TableOptions,
) -> list[WantedSample]:
    cells = {
        name: params.parse_day(context, name, text) if name.endswith("_date") else text
        for name, text in given.items()
    }
    found = understand(
        0,
        {**cells, "sequence_name": _only_header(path)},
        faults.append,
        places,
        private=reading.private,
        missing_words=reading.missing_words,
    )
    return [found] if found else []


def _only_header(path: Path) -> str:
    from aspencli.tabular.fasta import read_fasta

    headers = [found.header for found in read_fasta(path)]
    if len(headers) != 1:
        raise BadInputError(
            f"Expected one sequence in {path}, found {len(headers):,}.",
            hint="For several samples, pass --metadata FILE.",
        )
    return headers[0]


def _table(
    context: AppContext, path: str, given: TableOptions, faults: list[Fault], places: Gazetteer
) -> list[WantedSample]:
    from aspencli.cli.changes import runner
    from aspencli.tabular.dates import DayFormat

    names = runner.chosen_names(context, given.names)
    days = DayFormat(given.date_format) if given.date_format is not None else None
    with runner.opened_table(context, path, given, given.template) as (source, said):
        found = read_wanted(
            source,
            faults.append,
            places,
            private=given.private,
            names=names,
            missing_words=given.missing_words,
            days=days,
        )
        runner.print_notes(context.out, source, said)
    return found


@dataclass
class Batch:
    """A batch of samples to create."""

    context: AppContext
    scope: Scope
    sequences: Sequences
    wanted: list[WantedSample]
    places: Gazetteer

    def create(self, *, skip_existing: bool, dry_run: bool) -> None:
        """Ask for confirmation, create the samples, and report the outcome of each.

        Raises:
            ConflictError: If the group has such samples and they are not to be skipped, or if its
                other samples have the public identifiers.
        """
        from aspencli.cli.changes.execute import execute

        existing, clashing = self._taken()
        if clashing or (existing and not skip_existing):
            raise _taken(existing, clashing)
        execute(self._change(existing), dry_run=dry_run)

    def _change(self, existing: Sequence[WantedSample]) -> ItemChange:
        from aspencli.cli.changes.execute import ItemChange

        left_out = {one.private for one in existing}
        new = [one for one in self.wanted if one.private not in left_out]
        plan = [self._row(one, "create") for one in new]
        same = [self._row(one, "skip") for one in existing]
        return ItemChange(
            self.context,
            f"create {counted(len(new), 'sample')} in {self.scope}",
            OUTCOME_COLUMNS,
            plan + same,
            partial(self._send, new, same),
            done=f"{counted(len(new), 'sample')} created, {len(same):,} skipped.",
            shown=(
                _PREVIEW,
                [{**row, "line": one.line or None} for one, row in zip(new, plan, strict=True)],
            ),
            label="Creating samples",
            partial="samples were created",
            group=self.scope.org,
        )

    def _send(self, new: list[WantedSample], same: list[Row]) -> Iterator[Sequence[Row]]:
        self._name_organism(new)
        samples = self.context.api().samples
        for some in create_samples(samples, self.scope, self.sequences.samples(new)):
            yield [outcome_row(sample, "created") for sample in some]
        yield [{**row, "outcome": "skipped"} for row in same]

    def _taken(self) -> tuple[list[WantedSample], list[WantedSample]]:
        """Return samples the group already has, and new ones with a public identifier in use."""
        private, public = taken_names(self.context.api(), self.scope, self.wanted)
        existing = [one for one in self.wanted if one.private in private]
        clashing = [
            one
            for one in self.wanted
            if one.private not in private and one.fields.get("public_identifier") in public
        ]
        return existing, clashing

    def _name_organism(self, new: Sequence[WantedSample]) -> None:
        """Set the organism, because the service assumes SARS-CoV-2 where it is missing."""
        slug = self.scope.slug
        if slug == _DEFAULT_PATHOGEN:
            return
        name = next((p["name"] for p in self.context.api().pathogens() if p["slug"] == slug), None)
        for one in new:
            if name is not None:
                one.fields.setdefault("organism", name)

    def _row(self, one: WantedSample, outcome: str) -> Row:
        known = {**one.fields, **one.genome}
        place = self.places.find(str(one.fields["location_id"]))
        return {
            **{column.key: known.get(column.key) for column in OUTCOME_COLUMNS},
            "location": name_of(place) or None,
            "outcome": outcome,
        }


def _taken(existing: Sequence[WantedSample], clashing: Sequence[WantedSample]) -> ConflictError:
    problems = [(one.line, f"{one.private} already exists") for one in existing]
    problems += [
        (one.line, f"{one.fields['public_identifier']} is used by another sample")
        for one in clashing
    ]
    details = [f"line {line}: {words}" if line else words for line, words in sorted(problems)]
    return ConflictError(
        f"Cannot create {counted(len(problems), 'sample')}: the identifiers are already used in "
        "this group; nothing was written.",
        details=details[:SHOWN],
        hint="Use other public identifiers, or leave them out to have the service generate them."
        if clashing
        else "Use other private identifiers, or skip these samples with --skip-existing.",
    )


def _refuse(context: AppContext, faults: list[Fault], foreign: list[str]) -> None:
    """List all problems and raise an error, if there are any."""
    problems = [_words(fault) for fault in sorted(faults, key=lambda fault: fault.line)]
    problems += [f"sequence {name!r} does not match any sample" for name in foreign]
    for line in problems[:SHOWN]:
        context.out.info(line)
    if len(problems) > SHOWN:
        context.out.info(f"... and {len(problems) - SHOWN:,} more")
    if problems:
        raise BadInputError(
            f"{counted(len(problems), 'problem')} found; nothing was written.",
            hint="Fix the problems listed above, then run the command again.",
        )


def _words(fault: Fault) -> str:
    line = f"line {fault.line}: " if fault.line else ""
    return line + (f"{fault.column}: " if fault.column else "") + fault.reason
