"""``aspencli phylo-runs``: the runs that build phylogenetic trees.

They are listed from either backend, and started, renamed, and deleted through the API.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from aspencli.cli import params
from aspencli.cli.app import examples
from aspencli.cli.app import group as command_group
from aspencli.cli.context import Backend, current
from aspencli.cli.output.formats import OUTCOME, Column, Row, titled
from aspencli.errors import BadInputError
from aspencli.stored_text import clean_name
from aspencli.text import counted

if TYPE_CHECKING:
    from aspencli.remote.api import NewPhyloRun, PhyloRun


app = command_group("List, start, rename, and delete runs that build phylogenetic trees.")

COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("workflow_status", "Status", whole=True),
    Column("tree_type", "Type"),
    *titled("group", "pathogen", secondary=True),
    Column("start_datetime", "Started", whole=True),
    Column("end_datetime", "Ended", secondary=True),
    Column("user", "Started by", secondary=True),
    Column("phylo_tree", "Tree", right=True, whole=True),
    Column("template_args", "Arguments", secondary=True),
    Column("contextual_data_source", "Contextual data", secondary=True),
)
_CHANGED = {"id", "name", "workflow_status", "tree_type", "group", "start_datetime", "phylo_tree"}
CHANGE_COLUMNS = (*(column for column in COLUMNS if column.key in _CHANGED), OUTCOME)
_OBJECT = 'Write an object: --template-args \'{"filter_start_date": "2023-01-01"}\'.'
_CREATE_EXAMPLES = examples(
    "aspencli phylo-runs create RCPHL-0000001 RCPHL-0000002 --name Cannery --tree-type targeted",
    "aspencli phylo-runs create --from ids.txt --name Cannery --tree-type overview "
    "--start-date 2023-01-01 --lineage BA.2",
)
_UPDATE_EXAMPLES = examples("aspencli phylo-runs update 7 --name 'Cluster at the cannery'")
_DELETE_EXAMPLES = examples(
    "aspencli phylo-runs delete 7 9 --dry-run", "aspencli phylo-runs delete --from ids.txt --yes"
)

Name = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="TEXT",
        help="Name of the run and its tree, up to 128 characters.",
        callback=params.checked("the name", clean_name),
    ),
]


class TreeKind(StrEnum):
    """The types of phylogenetic trees."""

    OVERVIEW = "overview"
    TARGETED = "targeted"
    NON_CONTEXTUALIZED = "non_contextualized"


@app.command("list", epilog=examples("aspencli phylo-runs list --group 1"))
def list_(
    ctx: typer.Context,
    group: params.GroupOption = None,
    pathogen: params.PathogenOption = None,
    via: params.ViaOption = None,
) -> None:
    """List runs and the ids of their trees."""
    context = current(ctx)
    backend = context.choose_backend(via)
    group = params.chosen_group(context, group)
    pathogen = params.chosen_pathogen(context, pathogen)
    context.announce(backend)
    if backend is Backend.API:
        from aspencli.phylo.remote import ask_runs

        org = params.chosen_org(context)
        rows = ask_runs(context.api(), group=group, pathogen=pathogen, org=org)
        return context.out.rows(COLUMNS, rows, empty="No runs found.")
    from aspencli.phylo.database import list_runs

    with context.database().reading() as session:
        rows = list_runs(session, group=group, pathogen=pathogen)
        return context.out.rows(COLUMNS, rows, empty="No runs found.")


@app.command(epilog=_CREATE_EXAMPLES)
@params.expanded
def create(
    ctx: typer.Context,
    name: Name,
    tree_type: Annotated[
        TreeKind,
        typer.Option(case_sensitive=False, help="How to select the public samples to add."),
    ],
    *,
    samples: params.SampleOptions,
    start_date: Annotated[
        str | None,
        params.text_option(
            "Earliest collection date.", "--start-date", "--filter-start-date", metavar="DATE"
        ),
    ] = None,
    end_date: Annotated[
        str | None,
        params.text_option(
            "Latest collection date.", "--end-date", "--filter-end-date", metavar="DATE"
        ),
    ] = None,
    lineages: Annotated[
        list[str] | None,
        typer.Option(
            "--lineage",
            "--filter-pango-lineages",
            metavar="NAME",
            help="Only this Pango lineage; can be repeated.",
        ),
    ] = None,
    location: Annotated[
        str | None,
        params.place_option(
            "Location to focus on: an id, or Region / Country / Division / Location."
        ),
    ] = None,
    template_args: Annotated[
        str | None,
        params.text_option(
            'Extra workflow arguments as an object: {"filter_start_date": "2023-01-01"}.',
            metavar="JSON",
        ),
    ] = None,
    dry_run: params.DryRunOption = False,
    scoped: params.ScopeOptions,
) -> None:
    """Start a run that builds a phylogenetic tree of samples and related public samples."""
    from aspencli.cli.changes.execute import ItemChange, execute
    from aspencli.cli.changes.options import parse_day
    from aspencli.phylo.remote import start_run
    from aspencli.reference.remote import Gazetteer

    context = current(ctx)
    said = {"filter_start_date": start_date, "filter_end_date": end_date}
    days = {key: parse_day(context, key, day) for key, day in said.items() if day is not None}
    ids, scope = params.chosen_samples(context, samples, scoped, writing=True)
    wanted: NewPhyloRun = {"name": name, "tree_type": tree_type.value.upper(), "samples": ids}
    arguments: dict[str, object] = {**_arguments(template_args), **days}
    if lineages:
        arguments["filter_pango_lineages"] = lineages
    if location is not None:
        arguments["location_id"] = Gazetteer(context.api().locations).find(location)["id"]
    if arguments:
        wanted["template_args"] = arguments
    wanted["samples"] = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    count = counted(len(wanted["samples"]), "sample")
    row = {
        **{column.key: None for column in CHANGE_COLUMNS},
        "name": name,
        "tree_type": wanted["tree_type"],
        "group": scope.org.name,
        "outcome": "create",
    }

    def start() -> Iterator[Sequence[Row]]:
        yield [run_outcome(start_run(context.api().phylo_runs, scope, wanted), "created")]

    change = ItemChange(
        context,
        f"start run {name!r} with {count} in {scope}",
        CHANGE_COLUMNS,
        [row],
        start,
        done=lambda rows: f"Started run {rows[0]['id']}.",
        next="Check its status: aspencli phylo-runs list",
        single=True,
        group=scope.org,
    )
    execute(change, dry_run=dry_run)


@app.command("rename", hidden=True, epilog=_UPDATE_EXAMPLES)
@app.command(epilog=_UPDATE_EXAMPLES)
@params.expanded
def update(
    ctx: typer.Context,
    run: Annotated[int, typer.Argument(metavar="RUN", help="Run id.")],
    name: Name,
    *,
    dry_run: params.DryRunOption = False,
    scoped: params.ScopeOptions,
) -> None:
    """Rename a finished run and its tree."""
    from aspencli.cli.changes.execute import ItemChange, execute
    from aspencli.phylo.remote import find_runs

    context = current(ctx)
    scope = params.chosen_scope(context, scoped, writing=True)
    runs = context.api().phylo_runs
    (before,) = find_runs(runs, scope, [run])

    def rename() -> Iterator[Sequence[Row]]:
        yield [run_outcome(runs.rename(*scope.key, run, name), "updated")]

    change = ItemChange(
        context,
        f"rename run {run} in {scope} from {before['name']!r} to {name!r}",
        CHANGE_COLUMNS,
        [run_outcome(before, "unchanged" if before["name"] == name else "update")],
        rename,
        done=lambda rows: f"Renamed run {run} to {rows[0]['name']!r}.",
        single=True,
        group=scope.org,
    )
    execute(change, dry_run=dry_run)


@app.command(epilog=_DELETE_EXAMPLES)
@params.expanded
def delete(
    ctx: typer.Context,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN...", help="Run ids; - reads them from stdin."),
    ] = None,
    file: Annotated[str | None, params.file_option("id", "an id")] = None,
    dry_run: params.DryRunOption = False,
    *,
    scoped: params.ScopeOptions,
) -> None:
    """Permanently delete finished runs and their trees.

    If any of the runs does not exist or is still running, nothing is deleted.
    """
    from aspencli.cli.changes.execute import ItemChange, execute
    from aspencli.phylo.remote import delete_runs, find_runs, run_ids

    context = current(ctx)
    ids = run_ids(params.chosen_ids(context, runs, file, ("id",)))
    scope = params.chosen_scope(context, scoped, writing=True)
    service = context.api().phylo_runs
    found = find_runs(service, scope, ids)
    rows = {run["id"]: run_outcome(run, "delete") for run in found}

    def remove() -> Iterator[Sequence[Row]]:
        for gone in delete_runs(service, scope, list(rows)):
            yield [{**rows[gone], "outcome": "deleted"}]

    change = ItemChange(
        context,
        f"delete {counted(len(rows), 'run')} in {scope} and their trees",
        CHANGE_COLUMNS,
        list(rows.values()),
        remove,
        done=f"{counted(len(rows), 'run')} deleted.",
        label="Deleting runs",
        partial="runs were deleted",
        group=scope.org,
    )
    execute(change, dry_run=dry_run)


def run_outcome(run: PhyloRun, outcome: str) -> dict[str, object]:
    """Return the report row of a run."""
    from aspencli.phylo.remote import run_row

    return {**run_row(run), "outcome": outcome}


def _arguments(text: str | None) -> dict[str, object]:
    """Return the value of ``--template-args``.

    Raises:
        BadInputError: If it is not a JSON object.
    """
    if text is None:
        return {}
    found = params.parse_json(text, "--template-args", _OBJECT)
    if not isinstance(found, dict):
        raise BadInputError("Invalid value for --template-args: not an object", hint=_OBJECT)
    return found
