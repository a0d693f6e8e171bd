"""Changes that replace a whole database: by a dump, by plain SQL, or by a copy of another one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aspencli.cli.changes.execute import ItemChange
from aspencli.cli.output.formats import OUTCOME, Column, Row
from aspencli.config import Safety
from aspencli.copies.choices import Trees
from aspencli.errors import (
    AspenError,
    BadInputError,
    ConflictError,
    CredentialsError,
    RefusedError,
)
from aspencli.text import counted, size_text

if TYPE_CHECKING:
    from aspen.database.engine import Database
    from aspencli.admin.databases import Holdings
    from aspencli.cli.context import AppContext
    from aspencli.copies.load import Loaded
    from aspencli.copies.manifest import LeftOut, Manifest
    from aspencli.copies.places import Place
    from aspencli.copies.restore import Replaced
    from aspencli.copies.sealing import Vault
    from aspencli.copies.tree_files import TreeStore

PASSPHRASE = "ASPEN_DUMP_PASSPHRASE"  # noqa: S105 - the name of a variable
_SECRET_KEY = "S3_db_bucket"  # noqa: S105 - the name of a value
RESTORE_COLUMNS = (
    Column("database", "Database", of=str),
    Column("source", "Source", whole=True, of=str),
    Column("revision", "Revision", whole=True),
    Column("tables", "Tables", of=int | None),
    Column("rows", "Rows", of=int | None),
    Column("trees", "Trees", of=str | None),
    Column("tree_files", "Tree files", of=int | None),
    OUTCOME,
)


# What to load


@dataclass(frozen=True)
class Incoming:
    """The data to restore.

    Attributes:
        place: The place as the operator gave it.
        facts: Its facts for the plan.
        build: Loads it into a new database.
        store: The place for the files of its trees; None if there are none.
    """

    place: str
    facts: Row
    build: Callable[[Database], Loaded]
    store: TreeStore | None = None


def open_source(context: AppContext, place: str, trees: Trees = Trees.KEEP) -> Incoming:
    """Return what to restore, once all of it is verified.

    Raises:
        AspenError: It does not exist, is damaged, or cannot be restored by this version.
    """
    from aspencli.copies.plain import is_plain

    if is_plain(place):
        return _plain_source(context, place)
    from aspencli.copies.feeds import DumpFeed
    from aspencli.copies.load import load, require_revision
    from aspencli.copies.places import find_place
    from aspencli.copies.reading import require_intact

    found = find_place(place, lambda: context.aws)
    manifest = found.manifest()
    with context.out.progress("Verifying", manifest.size) as tick:
        require_intact(found, manifest, tick)
    revision = require_revision(manifest.revision, "The dump")
    vault = _known_vault(context, manifest, found)
    context.out.info(describe(manifest))
    dropped = trees is Trees.DROP
    has_trees = bool(manifest.tree_files or manifest.trees_left_out)
    store = store_of_trees(context) if has_trees and not dropped else None

    def build(new: Database) -> Loaded:
        feed = DumpFeed(found, manifest, vault)
        with context.out.progress("Loading rows", manifest.rows) as tick:
            return load(new, feed, store=store, drop_trees=dropped, tick=tick)

    facts = {
        "revision": revision,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "trees": Trees.DROP.value if dropped else manifest.trees,
        "tree_files": 0 if dropped else len(manifest.tree_files),
    }
    return Incoming(place, facts, build, store)


def store_of_trees(context: AppContext) -> TreeStore:
    """Return the place for the files of trees in the bucket of the destination.

    Raises:
        AspenError: The bucket is not known, or cannot be used.
    """
    from aspencli.copies.tree_files import TreeStore, with_way_on

    try:
        if not (context.target.secret_name or context.is_on_laptop):
            raise BadInputError(
                f"No bucket is known for {context.target.label}.",
                hint=f"Set secret_name under [targets.{context.target.name}] in "
                f"{context.config.path} to the secret that has {_SECRET_KEY}.",
            )
        store = TreeStore(context.storage, context.storage.secret.require(_SECRET_KEY))
    except AspenError as error:
        raise with_way_on(error) from error
    store.require_access()
    return store


def warn_of_trees(context: AppContext, left_out: Sequence[LeftOut]) -> None:
    """Name the trees whose files are not in a dump or a copy."""
    if not left_out:
        return
    context.out.warn(
        f"{counted(len(left_out), 'tree')} cannot be opened in the copy, because "
        f"{'its file was' if len(left_out) == 1 else 'their files were'} left out."
    )
    for one in left_out:
        context.out.info(f"  {one}")


def _known_vault(context: AppContext, manifest: Manifest, place: Place) -> Vault | None:
    if manifest.encryption is None:
        return None
    from aspencli.copies.reading import require_passphrase
    from aspencli.copies.sealing import Vault

    vault = Vault(_passphrase(context, "Passphrase of the dump:"), manifest.encryption)
    require_passphrase(place, manifest, vault)
    return vault


def _plain_source(context: AppContext, place: str) -> Incoming:
    from aspencli.copies.plain import load_plain, open_plain

    with open_plain(place, lambda: context.aws) as file:
        file.read(1)  # it exists, and can be unpacked

    def build(new: Database) -> Loaded:
        with (
            open_plain(place, lambda: context.aws) as file,
            context.out.progress("Loading rows") as tick,
        ):
            return load_plain(new, file, place, tick)

    unknown = dict.fromkeys(("revision", "tables", "rows", "trees", "tree_files"))
    return Incoming(place, unknown, build)


def restoring(
    context: AppContext,
    database: Database,
    source: Incoming,
    found: Holdings | None,
    *,
    force: bool,
) -> ItemChange:
    """Return the change that replaces a database, or creates it, with what is restored."""
    from aspencli.admin.databases import name_of

    row = {
        "database": name_of(database),
        "source": source.place,
        **source.facts,
        "outcome": "update" if found else "create",
    }
    what = f"replace {row['database']} ({described(found)}) with" if found else "create"
    return replacing(
        context,
        f"{what} {source.place}" if found else f"create {row['database']} from {source.place}",
        RESTORE_COLUMNS,
        row,
        database,
        source.build,
        found,
        store=source.store,
        force=force,
    )


def replacing(
    context: AppContext,
    what: str,
    columns: tuple[Column, ...],
    row: dict[str, Any],
    database: Database,
    build: Callable[[Database], Loaded],
    found: Holdings | None,
    *,
    store: TreeStore | None,
    force: bool,
) -> ItemChange:
    """Return the change that replaces a database, or creates it.

    Args:
        context: The context of the run; its target is the destination.
        what: The action, as a verb phrase.
        columns: The columns of the plan and the result.
        row: The plan.
        database: The destination.
        build: Fills the new database.
        found: What the destination has now; None if it does not exist.
        store: The place for the files of trees; None if there are none.
        force: True to terminate other sessions of the destination at the end.
    """
    from aspencli.copies.restore import replace as replace_database

    def apply() -> Iterator[Sequence[Row]]:
        replaced = replace_database(database, build, store=store, force=force)
        if context.is_on_laptop:
            context.laptop.deployment.prepare()
        _tell(context, replaced)
        loaded = vars(replaced.loaded)
        outcome = "updated" if replaced.replaced else "created"
        yield [{**row, **{k: v for k, v in loaded.items() if k in row}, "outcome": outcome}]

    return ItemChange(
        context,
        what,
        columns,
        [row],
        apply,
        done=lambda rows: f"{row['database']} has {rows[0]['rows']:,} rows now",
        next="Check it: aspencli db status",
        single=True,
        by_name=found is not None and context.target.safety is not Safety.LOCAL,
    )


def _tell(context: AppContext, replaced: Replaced) -> None:
    for name in replaced.leftovers:
        context.out.info(f"Dropped {name}, which an interrupted run had left.")
    if replaced.left:
        context.out.warn(
            f"{counted(len(replaced.left), 'setting or privilege')} could not be carried over. "
            "As the owner, run: " + "; ".join(replaced.left)
        )
    warn_of_trees(context, replaced.loaded.left_out)
    for place in replaced.stale:
        context.out.warn(f"The files of the replaced trees are left in {place}. Remove them.")


def describe(manifest: Manifest) -> str:
    """Return one sentence about a dump."""
    kind = "scrubbed" if manifest.scrubbed else "UNMASKED"
    return (
        f"{kind[0].upper()}{kind[1:]} dump of {manifest.database} on {manifest.target}, made "
        f"{manifest.created_at}: revision {manifest.revision}, PostgreSQL "
        f"{manifest.server_version}, {manifest.rows:,} rows, "
        f"{counted(len(manifest.tree_files), 'tree file')}, {size_text(manifest.size)}"
        f"{', encrypted' if manifest.encryption else ''}"
    )


# Destinations


def refuse_production(context: AppContext) -> None:
    """Check that the destination is not production.

    Raises:
        RefusedError: It is.
    """
    if context.target.is_production:
        raise RefusedError(
            f"{context.target.title} is production, which is never replaced by a copy or a dump; "
            "nothing was written.",
            hint="Choose another target with --env.",
        )


def require_different(source: Database, destination: Database) -> None:
    """Check that a copy has two databases.

    Raises:
        ConflictError: Both targets have the same one.
    """
    from aspencli.admin import databases

    if not databases.exists(destination):
        return
    is_same = source.identity() == destination.identity()
    destination.dispose()  # a session of ours must not count as another one's
    if is_same:
        raise ConflictError(
            "--from and --to are the same database; nothing was written.",
            hint="Choose another target with --to.",
        )


def holdings(
    context: AppContext, database: Database, *, force: bool, dry_run: bool
) -> Holdings | None:
    """Return what the destination has now, and show it; None if it does not exist."""
    from aspencli.admin import databases
    from aspencli.copies.beside import require_direct

    require_direct(database)
    found = databases.holdings(database)
    if found is None:
        return None
    name = databases.name_of(database)
    if context.target.name == "local":
        context.require_laptop(database, f"replace {name}")
    context.out.info(f"{name} on {context.target.label}: {described(found)}")
    if not (force or dry_run):
        databases.require_alone(name, found.visitors)
    return found


def described(found: Holdings) -> str:
    """Return the contents of a database as text."""
    samples = "sample count unknown" if found.samples is None else f"{found.samples:,} samples"
    return f"{size_text(found.size)}, {samples}, {counted(len(found.visitors), 'other session')}"


# Setting up a database with data


def setting_up(
    context: AppContext, database: Database, place: str, trees: Trees = Trees.KEEP
) -> ItemChange:
    """Return the change that creates a database with data, at the newest revision.

    Raises:
        ConflictError: The database has a schema, so there may be data in it.
    """
    from aspencli.admin import databases
    from aspencli.copies.beside import require_direct

    refuse_production(context)
    require_direct(database)
    _refuse_schema(database, place)
    database.dispose()
    source = open_source(context, place, trees)

    def build(new: Database) -> Loaded:
        loaded = source.build(new)
        upgraded = databases.upgrade(new, databases.pending(new))
        return replace(loaded, revision=upgraded.after or loaded.revision)

    found = databases.holdings(database)
    return restoring(context, database, replace(source, build=build), found, force=False)


def _refuse_schema(database: Database, place: str) -> None:
    from aspencli.admin import databases

    if databases.exists(database) and databases.schema_state(database).revision is not None:
        raise ConflictError(
            f"{databases.name_of(database)} already has a schema; nothing was written.",
            hint=f"To replace it with the data: aspencli db restore {place}",
        )


# Passphrases


def new_vault(context: AppContext, *, dry_run: bool) -> Vault | None:
    """Return the key of a new dump, from a passphrase; None for a dry run that has none.

    Raises:
        CredentialsError: There is no passphrase, and no terminal to ask on.
        BadInputError: It is too short.
    """
    from aspencli.copies.sealing import SHORTEST, Vault

    if dry_run and not os.environ.get(PASSPHRASE):
        return None
    passphrase = _passphrase(context, "Passphrase for the dump:", again=True)
    if len(passphrase) < SHORTEST:
        raise BadInputError(
            f"The passphrase is too short: it needs {SHORTEST} characters or more.",
            hint="Use a few random words.",
        )
    return Vault(passphrase)


def _passphrase(context: AppContext, question: str, *, again: bool = False) -> str:
    if given := os.environ.get(PASSPHRASE):
        return given
    if not context.out.interactive:
        raise CredentialsError(
            "A passphrase is required for an encrypted dump; nothing was written.",
            hint=f"Set {PASSPHRASE}.",
        )
    from getpass import getpass

    passphrase = getpass(f"{question} ")
    if again and getpass("The same again: ") != passphrase:
        raise BadInputError("The passphrases differ; nothing was written.")
    return passphrase
