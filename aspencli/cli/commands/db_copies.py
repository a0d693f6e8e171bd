"""``aspencli db dump``, ``restore``, ``copy``, and ``dumps``: dumps and copies of a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded, group
from aspencli.cli.context import AppContext, current
from aspencli.cli.output.formats import OUTCOME, Column, Row, prints
from aspencli.cli.params import DryRunOption
from aspencli.config import Safety, Target
from aspencli.copies.choices import Choice, Genomes, Trees
from aspencli.errors import BadInputError, RefusedError
from aspencli.text import counted

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.admin.databases import Holdings
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.copies.load import Loaded
    from aspencli.copies.tree_files import TreeStore

PASSPHRASE = "ASPEN_DUMP_PASSPHRASE"  # noqa: S105 - the name of a variable
_CHOICES = (
    Column("scrubbed", "Scrubbed", of=bool),
    Column("genomes", "Genomes", of=str),
    Column("trees", "Trees", of=str),
    Column("groups", "Groups", of=str | None),
)
DUMP_COLUMNS = (
    Column("place", "Place", whole=True, of=str),
    Column("database", "Database", of=str),
    *_CHOICES,
    Column("encrypted", "Encrypted", of=bool),
    Column("tables", "Tables", of=int),
    Column("rows", "Rows", of=int | None),
    Column("tree_files", "Tree files", of=int | None),
    Column("size", "Size (bytes)", of=int | None),
    OUTCOME,
)
COPY_COLUMNS = (
    Column("source", "From", of=str),
    Column("target", "To", of=str),
    Column("database", "Database", of=str),
    *_CHOICES,
    Column("tables", "Tables", of=int),
    Column("rows", "Rows", of=int | None),
    Column("tree_files", "Tree files", of=int | None),
    OUTCOME,
)
_COPIED = ("scrubbed", "genomes", "trees", "groups", "tables", "rows", "tree_files")
PART_COLUMNS = (
    Column("file", "File", whole=True, of=str),
    Column("table", "Table", of=str),
    Column("rows", "Rows", of=int),
    Column("size", "Size (bytes)", of=int),
    Column("problem", "Problem"),
)

PlaceArgument = Annotated[
    str, typer.Argument(metavar="PLACE", help="A folder, or s3://bucket/folder.")
]
SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="PLACE", help="A dump (folder or s3://bucket/folder), or a file with plain SQL."
    ),
]
ScrubOption = Annotated[
    bool,
    typer.Option(
        "--scrub/--no-scrub",
        help="Mask personal data while reading. Unmasked, production requires more.",
    ),
]
GroupsOption = Annotated[
    str | None,
    params.text_option(
        "Only these groups and what belongs to them: ids, names, or prefixes, with commas.",
        "--groups",
        metavar="GROUP,...",
        what="the groups",
    ),
]
GenomesOption = Annotated[
    Genomes,
    typer.Option(
        "--genomes", help="Keep genomes, blank them (the same number of N), or drop them."
    ),
]
AsOption = Annotated[
    str | None,
    params.text_option(
        "Do not mask this user, who can then sign in to the copy.",
        "--as",
        metavar="EMAIL",
        what="the e-mail address",
    ),
]
ReasonOption = Annotated[
    str | None,
    params.text_option(
        "Why the data is needed, for the history. Required for production with --no-scrub.",
        "--reason",
        what="the reason",
    ),
]
EncryptOption = Annotated[
    bool,
    typer.Option(
        "--encrypt",
        help=f"Encrypt with a passphrase, from {PASSPHRASE} or asked for. "
        "Always so for production with --no-scrub.",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Terminate other sessions of the database at the end.")
]


@dataclass(frozen=True, kw_only=True)
class ChoiceOptions:
    """The options about what is copied, and how."""

    scrub: ScrubOption = True
    groups: GroupsOption = None
    genomes: GenomesOption = Genomes.KEEP
    trees: params.TreesOption = Trees.KEEP
    keeps: AsOption = None


@expanded
@prints(DUMP_COLUMNS)
def dump(
    ctx: typer.Context,
    place: PlaceArgument,
    choices: ChoiceOptions,
    encrypt: EncryptOption = False,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Write a dump of the target's database to a folder or S3, with personal data masked.

    One snapshot is read, by read-only sessions. Values are masked by the server as they are read:
    the originals never leave it. Equal values stay equal in the dump, but the key of the hashes is
    discarded at its end. Production with --no-scrub requires --confirm, --reason, and a passphrase.
    """
    from aspencli.cli.changes.copies import new_vault, warn_of_trees
    from aspencli.cli.changes.execute import execute
    from aspencli.copies.dump import Origin, write_dump
    from aspencli.copies.places import find_place

    context = current(ctx)
    database = context.database()
    is_secret = context.target.is_production and not choices.scrub
    if is_secret and reason is None:
        raise _no_reason(context.target)
    choice = _choice(database, choices)
    found = find_place(place, lambda: context.aws)
    found.require_free()
    vault = new_vault(context, dry_run=dry_run) if encrypt or is_secret else None
    plan = _planned(context, database, choice, choices, found.name, encrypted=encrypt or is_secret)

    def write() -> Iterator[Sequence[Row]]:
        origin = Origin(context.target.label, str(plan["database"]))
        with context.out.progress("Writing rows") as tick:
            manifest = write_dump(
                database,
                found,
                choice,
                origin,
                aws=lambda: context.storage,
                vault=vault,
                tick=tick,
            )
        warn_of_trees(context, manifest.trees_left_out)
        counts = {"rows": manifest.rows, "tree_files": len(manifest.tree_files)}
        yield [{**plan, **counts, "size": manifest.size, "outcome": "created"}]

    what = f"write {'a scrubbed' if choice.scrub else 'an UNMASKED'} dump of "
    change = _reasoned(
        context,
        reason,
        f"{what}{plan['database']} to {place}",
        DUMP_COLUMNS,
        [plan],
        write,
        done=lambda rows: f"Wrote {rows[0]['rows']:,} rows to {place}",
        next="To check it later: aspencli db dumps verify " + place,
        single=True,
        by_name=is_secret,
        default_yes=not is_secret,
        target=None if is_secret else _this_machine(context.target),
    )
    execute(change, dry_run=dry_run)


def _no_reason(target: Target) -> RefusedError:
    return RefusedError(
        f"A reason is required to dump {target.title} with --no-scrub; nothing was written.",
        hint="Pass --reason TEXT, such as a ticket. Without --no-scrub, none is required.",
    )


@prints("aspencli.cli.changes.copies:RESTORE_COLUMNS")
def restore(
    ctx: typer.Context,
    place: SourceArgument,
    trees: params.TreesOption = Trees.KEEP,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Replace the target's database with a dump, or with plain SQL of the old service.

    Every checksum is verified first. The data is loaded into a new database beside the target's,
    which takes its name once it is complete and checked; until then, nothing changes. Files of
    trees go to the target's bucket, under new keys. Owners, settings, and privileges are carried
    over. Production can never be restored this way.
    """
    from aspencli.cli.changes.copies import holdings, open_source, refuse_production, restoring
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    database = context.database(writable=True, admin=True)
    refuse_production(context)
    source = open_source(context, place, trees)
    found = holdings(context, database, force=force, dry_run=dry_run)
    execute(restoring(context, database, source, found, force=force), dry_run=dry_run)


@expanded
@prints(COPY_COLUMNS)
def copy(
    ctx: typer.Context,
    choices: ChoiceOptions,
    source: Annotated[
        str,
        params.text_option(
            "The target to read: NAME, or rdev/STACK.", "--from", metavar="TARGET", what="--from"
        ),
    ],
    to: Annotated[
        str,
        params.text_option(
            "The target to replace: NAME, or rdev/STACK.", "--to", metavar="TARGET", what="--to"
        ),
    ],
    force: ForceOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Replace a target's database with a copy of another target's, without a file in between.

    Personal data is masked as it is read. The copy is built beside the database and takes its name
    at the end, as with db restore. Production can be read, but only scrubbed, and never replaced.
    """
    from aspencli.cli.changes.copies import holdings, refuse_production, require_different
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    context.choose_target(to)
    database = context.database(writable=True, admin=True)
    refuse_production(context)
    reading = context.beside(source)
    origin = reading.database()
    if reading.target.is_production and not choices.scrub:
        raise _only_scrubbed(reading.target)
    require_different(origin, database)
    choice = _choice(origin, choices)
    found = holdings(context, database, force=force, dry_run=dry_run)
    planned = _planned(reading, origin, choice, choices, "", encrypted=False)
    copied = _Copy(reading, origin, choice, {key: planned[key] for key in _COPIED})
    execute(copied.change(context, database, found, force=force), dry_run=dry_run)


def _only_scrubbed(target: Target) -> RefusedError:
    return RefusedError(
        f"{target.title} is production, and is only copied scrubbed; nothing was written.",
        hint="Remove --no-scrub. For an unmasked dump: aspencli "
        f"--env {target.confirmed_by} db dump --no-scrub",
    )


@dataclass(frozen=True)
class _Copy:
    """A database to copy.

    Attributes:
        reading: The context of the target that has it.
        origin: The database.
        choice: The choices.
        plan: The plan of the copy, as far as the origin decides it.
    """

    reading: AppContext
    origin: Database
    choice: Choice
    plan: dict[str, Any]

    def change(
        self, context: AppContext, database: Database, found: Holdings | None, *, force: bool
    ) -> ItemChange:
        """Return the change that replaces a database with the copy."""
        from aspencli.admin.databases import name_of
        from aspencli.cli.changes.copies import described, replacing, store_of_trees

        store = store_of_trees(context) if self.plan["tree_files"] else None
        name = name_of(database)
        what = f"replace {name} ({described(found)}) with" if found else "create"
        kind = "a scrubbed copy" if self.choice.scrub else "an unmasked copy"
        return replacing(
            context,
            f"{what} {kind} of {self.reading.target.label}",
            COPY_COLUMNS,
            self._row(context, name, "update" if found else "create"),
            database,
            partial(self._load, context, store),
            found,
            store=store,
            force=force,
        )

    def _row(self, context: AppContext, database: str, outcome: str) -> dict[str, Any]:
        return {
            **self.plan,
            "source": self.reading.target.label,
            "target": context.target.label,
            "database": database,
            "outcome": outcome,
        }

    def _load(self, context: AppContext, store: TreeStore | None, new: Database) -> Loaded:
        from aspencli.copies.feeds import LiveFeed
        from aspencli.copies.load import load
        from aspencli.copies.rules import load_rules
        from aspencli.copies.snapshot import open_snapshot
        from aspencli.copies.tree_files import TreeFiles

        with (
            open_snapshot(self.origin, load_rules(), self.choice) as snapshot,
            context.out.progress("Copying rows") as tick,
        ):
            files = TreeFiles(snapshot, lambda: self.reading.storage)
            return load(new, LiveFeed(snapshot, files), store=store, tick=tick)


dumps_app = group("Dumps in a folder or in S3.")


@dumps_app.command(
    "verify",
    epilog=examples(
        "aspencli db dumps verify ./dump", "aspencli db dumps verify s3://mybucket/dumps/friday"
    ),
)
@prints(PART_COLUMNS)
def verify(ctx: typer.Context, place: PlaceArgument) -> None:
    """Check every file of a dump against the checksums in its manifest.

    The exit code is 1 if one is missing or was changed.
    """
    from aspencli.cli.changes.copies import describe
    from aspencli.copies.places import find_place
    from aspencli.copies.reading import check_parts

    context = current(ctx)
    found = find_place(place, lambda: context.aws)
    manifest = found.manifest()
    with context.out.progress("Verifying", manifest.size) as tick:
        checked = list(check_parts(found, manifest, tick))
    rows = [
        {**vars(one.part), "table": one.table, "problem": one.problem or None} for one in checked
    ]
    context.out.rows(PART_COLUMNS, rows)
    context.out.info(describe(manifest))
    damaged = [one for one in checked if one.problem]
    if damaged:
        context.out.warn(f"{counted(len(damaged), 'file')} of {len(checked):,} damaged or missing.")
        context.out.hint("Copy the dump again from where it was made, or make a new one.")
        raise typer.Exit(1)
    context.out.done(f"The dump is intact: {counted(len(checked), 'file')} verified.")


# What to copy


def _choice(database: Database, given: ChoiceOptions) -> Choice:
    from aspencli.copies.snapshot import find_groups, require_user

    if given.keeps and not given.scrub:
        raise BadInputError("--as cannot be combined with --no-scrub.", hint="Remove --as.")
    groups: tuple[int, ...] = ()
    if given.groups is not None:
        names = [name.strip() for name in given.groups.split(",") if name.strip()]
        if not names:
            raise BadInputError("--groups names no group.", hint="Pass prefixes, with commas.")
        groups = find_groups(database, names)
    keeps = given.keeps.strip().lower() if given.keeps else None
    if keeps:
        require_user(database, keeps, groups)
    return Choice(given.scrub, given.genomes, given.trees, groups, keeps)


def _planned(
    context: AppContext,
    database: Database,
    choice: Choice,
    given: ChoiceOptions,
    place: str,
    *,
    encrypted: bool,
) -> dict[str, Any]:
    """Return the plan of a dump, once it is certain that every column has a rule.

    Args:
        context: That of the target to read.
        database: Its database.
        choice: The choices.
        given: The choices as they were given.
        place: The place of the dump.
        encrypted: True to encrypt it.
    """
    from aspencli.admin.databases import name_of
    from aspencli.copies.load import require_revision
    from aspencli.copies.rules import load_rules
    from aspencli.copies.snapshot import open_snapshot
    from aspencli.copies.tree_files import TreeFiles

    with open_snapshot(database, load_rules(), choice, workers=1) as snapshot:
        require_revision(snapshot.revision, f"{name_of(database)}")
        tables = len(snapshot.tables)
        files = TreeFiles(snapshot, lambda: context.storage)
    files.require_access()
    return {
        "place": place,
        "database": name_of(database),
        "scrubbed": choice.scrub,
        "genomes": choice.genomes.value,
        "trees": choice.trees.value,
        "groups": given.groups,
        "encrypted": encrypted,
        "tables": tables,
        "rows": None,
        "tree_files": len(files.trees),
        "size": None,
        "outcome": "create",
    }


def _this_machine(target: Target) -> Target:
    """Return the target of a write that only makes a file; the database is only read."""
    return replace(target, safety=Safety.LOCAL)


def _reasoned(context: AppContext, reason: str | None, *given: Any, **named: Any) -> Any:
    """Return a change whose record has the reason."""
    from aspencli.changes.masking import masked_text
    from aspencli.changes.runs import Subject
    from aspencli.cli.changes.execute import ItemChange

    class Reasoned(ItemChange):
        def subject(self) -> Subject:
            text = masked_text(reason) if reason is not None else None
            return replace(super().subject(), reason=text)

    return Reasoned(context, *given, **named)
