"""``aspencli files``: the outputs of jobs in the target's bucket, beside the database's rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from aspen.workflows.store import FileKind
from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.output.formats import Column, Row, prints
from aspencli.errors import BadInputError, ConflictError, NotFoundError
from aspencli.text import counted, duration_text, size_text

if TYPE_CHECKING:
    from aspencli.storage.bucket import Bucket, DescribedObject, StoredObject
    from aspencli.storage.comparison import Compared, Difference, StoredFile
    from aspencli.storage.database import Records

app = command_group("List, show, download, and check the files of jobs in the target's bucket.")

LIST_COLUMNS = (
    Column("key", "Key", tail=True, of=str),
    Column("kind", "Kind", whole=True, of=str),
    Column("size", "Size", right=True, whole=True, of=int),
    Column("modified", "Modified", whole=True, secondary=True, of=dt.datetime),
    Column("run", "Run", right=True, whole=True, of=int | None),
    Column("tree", "Tree", right=True, whole=True, of=int | None),
    Column("group", "Group", secondary=True),
    Column("row", "Row", secondary=True, blank=lambda _row: "(none)"),
)
SHOW_COLUMNS = (
    Column("bucket", "Bucket", of=str),
    *LIST_COLUMNS,
    Column("etag", "ETag", of=str),
    Column("checksum", "Checksum", blank=lambda _row: "(none that can be compared)"),
    Column("content_type", "Content type"),
    Column("storage_class", "Storage class"),
)
CHECK_COLUMNS = (
    Column("problem", "Problem", whole=True, of=str),
    Column("kind", "Kind", whole=True, of=str),
    Column("key", "Key", tail=True, of=str),
    Column("bucket", "Bucket", secondary=True, of=str),
    Column("size", "Size", right=True, whole=True, of=int | None),
    Column("modified", "Modified", whole=True, secondary=True, of=dt.datetime | None),
    Column("row", "Row"),
    Column("run", "Run", right=True, whole=True, of=int | None),
    Column("tree", "Tree", right=True, whole=True, secondary=True, of=int | None),
    Column("group", "Group", secondary=True),
)
_SECRET_KEY = "S3_db_bucket"  # noqa: S105 - the name of a value
_SCHEME = "s3://"
_YOUNG = dt.timedelta(hours=1)
_LIST_EXAMPLES = examples(
    "aspencli files list --kind tree", "aspencli --env prod files list --run 9 -o json"
)
_SHOW_EXAMPLES = examples(
    "aspencli files show --tree 61",
    "aspencli files show 'phylo_run/Alameda County/OVERVIEW/9/builds.yaml'",
)
_DOWNLOAD_EXAMPLES = examples(
    "aspencli files download --tree 61 --out tree.json",
    "aspencli --env prod files download 'phylo_run/Alameda County/OVERVIEW/9/include.txt' -O .",
)
_CHECK_EXAMPLES = examples(
    "aspencli files check", "aspencli --env prod files check --kind tree -o json"
)

KindOption = Annotated[
    list[FileKind] | None,
    typer.Option(
        "--kind", metavar="KIND", help=f"Only this kind: {', '.join(FileKind)}. Repeatable."
    ),
]
TreeOption = Annotated[
    int | None,
    typer.Option(
        "--tree", metavar="ID", min=0, help="The file of this tree; see: aspencli phylo-runs list."
    ),
]


@dataclass(frozen=True, kw_only=True)
class FileFilters:
    """The options for which files to list."""

    kinds: KindOption = None
    run: Annotated[
        int | None, typer.Option("--run", metavar="ID", min=0, help="Only the files of this run.")
    ] = None
    tree: Annotated[
        int | None,
        typer.Option(
            "--tree", metavar="ID", min=0, help="Only this tree, and the other files of its run."
        ),
    ] = None

    def files(self, bucket: Bucket, records: Records, group: int | None) -> Iterator[StoredFile]:
        """Yield the files of the bucket that are wanted; of one group, if it is given."""
        from aspencli.storage.comparison import describe, prefix_of

        kinds = self.kinds or FileKind
        of_run = self.run is not None or self.tree is not None
        own = [
            key
            for (name, key), one in records.references.items()
            if one.tree and name == bucket.name
        ]
        for one in bucket.objects(prefix_of(kinds, of_run=of_run, own=own)):
            file = describe(one, records)
            if (
                file.kind in kinds
                and self.run in {None, file.run}
                and self.tree in {None, file.tree}
                and group in {None, file.group_id}
            ):
                yield file


@app.command("list", epilog=_LIST_EXAMPLES)
@expanded
@prints(LIST_COLUMNS)
def list_files(
    ctx: typer.Context,
    *,
    chosen: FileFilters,
    group: params.GroupOption = None,
    limit: params.LimitOption = None,
    everything: params.AllOption = False,
) -> None:
    """List the files of jobs with their sizes, and the rows that refer to them.

    Reads the database, and takes one request to S3 for each 1,000 objects.
    """
    context = current(ctx)
    most = params.chosen_limit(context.out, limit, everything)
    bucket, records, wanted = _both(context, group=params.chosen_group(context, group))
    if chosen.tree is not None:
        records.tree(chosen.tree)  # it has to exist
    rows = (_list_row(context, file) for file in chosen.files(bucket, records, wanted))
    context.out.rows(LIST_COLUMNS, islice(rows, most), empty="No files found.")
    if most is not None and next(rows, None) is not None:
        context.out.info(f"Only the first {counted(most, 'file')} shown. Show all with --all.")


@app.command(epilog=_SHOW_EXAMPLES)
@prints(SHOW_COLUMNS)
def show(
    ctx: typer.Context,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Key of the file, or s3://BUCKET/KEY.")
    ] = None,
    tree: TreeOption = None,
) -> None:
    """Show one file: its size, its checksum, and the row that refers to it."""
    from aspencli.storage.comparison import describe

    context = current(ctx)
    main, records, _group = _both(context)
    bucket, key = _named(context, main, records, file, tree)
    found = _describe(bucket, key, records)
    row = {
        **_list_row(context, describe(found, records)),
        "bucket": found.bucket,
        "etag": found.etag.strip('"'),
        "checksum": None if found.checksum is None else str(found.checksum),
        "content_type": found.content_type,
        "storage_class": found.storage_class,
    }
    context.out.record(SHOW_COLUMNS, row)


@dataclass(frozen=True, kw_only=True)
class DownloadOptions(params.OutOptions):
    """A file, and where to save it."""

    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="Key of the file, or s3://BUCKET/KEY.")
    ] = None
    tree: TreeOption = None


@app.command(epilog=_DOWNLOAD_EXAMPLES)
@expanded
def download(ctx: typer.Context, given: DownloadOptions) -> None:
    """Download a file as it is stored, and verify its checksum.

    An interrupted download leaves a partial file next to the output file; the same command then
    continues from there. A tree has public identifiers only; phylo-trees download also has those
    of your group.
    """
    from aspencli.cli.downloads import destination, report_saved, run_download

    context = current(ctx)
    main, records, _group = _both(context, reads=given.tree is not None)
    bucket, key = _named(context, main, records, given.file, given.tree)
    place = destination(context, given, _file_name(key))
    found = _describe(bucket, key, records)
    address = f"{_SCHEME}{found.bucket}/{key}"
    fetch = partial(bucket.download, found, verify_here=place.path is None)
    verify = None if found.checksum is None else found.checksum.verify
    size = run_download(context, place, address, fetch, verify)
    report_saved(context, place, size)
    if found.checksum is None:
        context.out.warn(
            "S3 has no checksum for this file that can be compared; only its size was."
        )
    elif place.path is not None:
        context.out.info(f"Verified: {found.checksum}")


@app.command(epilog=_CHECK_EXAMPLES)
@prints(CHECK_COLUMNS)
def check(
    ctx: typer.Context,
    kinds: KindOption = None,
    min_age: Annotated[
        str | None,
        params.text_option(
            "Only report files without a row if they are older than this, such as 30m, 2h, or 0s. "
            "Default: 1h.",
            "--min-age",
            metavar="TIME",
        ),
    ] = None,
) -> None:
    """Compare the files in the bucket with the database, in both directions.

    Reports rows whose file does not exist (no-object), and files that no row refers to (no-row):
    trees, repository dumps, and other files of runs that were deleted. If there are any, the exit
    code is 7. Changes nothing.

    Files of runs in progress are not reported. Takes one request to S3 for each 1,000 objects.
    """
    from aspencli.cli.durations import parse_duration
    from aspencli.storage.bucket import Bucket
    from aspencli.storage.comparison import compare

    context = current(ctx)
    age = _YOUNG if min_age is None else parse_duration(min_age, "--min-age")
    main, records, _group = _both(context)
    names = {bucket for bucket, _key in records.references} - {main.name}
    with context.out.progress("Listing the bucket"):
        result = compare(
            main,
            [Bucket(context.storage, name) for name in sorted(names)],
            records,
            frozenset(kinds or FileKind),
            youngest=dt.datetime.now(dt.UTC) - age,
        )
    rows = [_difference_row(context, one) for one in result.differences]
    context.out.rows(CHECK_COLUMNS, rows)
    _conclude(context, result, age)


def _conclude(context: AppContext, result: Compared, age: dt.timedelta) -> None:
    """Report what was compared, and end with the exit code."""
    out = context.out
    out.info(
        f"Compared {counted(result.objects, 'file')} with {counted(result.rows, 'reference')} in "
        f"the database of {context.target.label}."
    )
    if result.young:
        out.info(
            f"Not reported: {counted(result.young, 'file')} without a row, changed within the last "
            f"{duration_text(age.total_seconds())}. A job may be about to add the row."
        )
    for name, error in result.unread.items():
        out.warn(f"The files in bucket {name} were not checked. {error.message}")
    if result.differences:
        numbers = _numbers(result.differences)
        out.info(f"{counted(len(result.differences), 'difference')}: {', '.join(numbers)}.")
        raise typer.Exit(ConflictError.exit_code)
    for error in result.unread.values():
        raise error
    out.done("No differences.")


def _numbers(differences: Sequence[Difference]) -> list[str]:
    """Return the number of differences of each kind, in words."""
    from aspencli.storage.comparison import Problem

    return [
        f"{sum(one.problem is problem for one in differences):,} {words}"
        for problem, words in (
            (Problem.NO_OBJECT, "without a file"),
            (Problem.NO_ROW, "without a row"),
        )
    ]


# Both sides


def _both(
    context: AppContext, *, group: str | None = None, reads: bool = True
) -> tuple[Bucket, Records, int | None]:
    """Return the bucket, what the database knows about its objects, and the ID of a group.

    Raises:
        NotFoundError: The group does not exist.
    """
    from aspencli.storage.bucket import Bucket
    from aspencli.storage.database import Records, read_records

    context.announce(Backend.DB)
    number = None
    records = Records({}, {})
    if reads:
        database = context.database(early=True)
        from aspencli.reference.database import find_group

        with database.connected() as reader:
            number = None if group is None else find_group(reader, group).id
            records = read_records(reader)
    return Bucket(context.storage, _bucket_name(context)), records, number


def _bucket_name(context: AppContext) -> str:
    if not (context.target.secret_name or context.is_on_laptop):
        raise BadInputError(
            f"No bucket is known for {context.target.label}.",
            hint=f"Set secret_name under [targets.{context.target.name}] in {context.config.path} "
            f"to the secret that has {_SECRET_KEY}.",
        )
    return context.storage.secret.require(_SECRET_KEY)


def _named(
    context: AppContext, main: Bucket, records: Records, file: str | None, tree: int | None
) -> tuple[Bucket, str]:
    """Return the bucket and key of a file named by its key, its address, or its tree.

    Raises:
        BadInputError: None of them was given, or several, or the address has no key.
    """
    from aspencli.storage.bucket import Bucket

    if (file is None) == (tree is None):
        raise BadInputError(
            "No file was given." if file is None else "--tree was given with another file.",
            hint="Pass a key (see: aspencli files list), or --tree ID.",
        )
    if tree is not None:
        reference = records.tree(tree)
        name, key = reference.bucket, reference.key
    else:
        name, key = main.name, str(file)
        if key.startswith(_SCHEME):
            name, _, key = key.removeprefix(_SCHEME).partition("/")
        if not (name and key):
            raise BadInputError(f"Invalid file: {file!r}", hint="Pass a key, or s3://BUCKET/KEY.")
    return main if name == main.name else Bucket(context.storage, name), key


def _describe(bucket: Bucket, key: str, records: Records) -> DescribedObject:
    """Return the description of an object.

    Raises:
        NotFoundError: It does not exist; the message names the row that refers to it.
    """
    try:
        return bucket.describe(key)
    except NotFoundError as error:
        if reference := records.references.get((bucket.name, key)):
            error.message += f", although {reference.name} refers to it"
            error.hint = "Find all such rows: aspencli files check"
        raise


def _file_name(key: str) -> str:
    """Return the name to save an object under; a key can be any text."""
    name = PurePosixPath(key).name
    return name if name.isprintable() and name not in {"", ".", ".."} else "file"


# Rows


def _list_row(context: AppContext, file: StoredFile) -> Row:
    return {
        "key": file.object.key,
        "kind": file.kind.value,
        "size": _size(context, file.object),
        "modified": file.object.modified,
        "run": file.run,
        "tree": file.tree,
        "group": file.group,
        "row": file.row,
    }


def _difference_row(context: AppContext, one: Difference) -> Row:
    return {
        "problem": one.problem.value,
        "kind": one.kind.value,
        "key": one.key,
        "bucket": one.bucket,
        "size": None if one.object is None else _size(context, one.object),
        "modified": None if one.object is None else one.object.modified,
        "row": one.row,
        "run": one.run,
        "tree": one.tree,
        "group": one.group,
    }


def _size(context: AppContext, found: StoredObject) -> int | str:
    """Return the size in bytes, or in a readable unit for a table."""
    return size_text(found.size) if context.out.chosen_form == "table" else found.size
