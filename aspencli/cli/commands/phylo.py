"""``aspencli phylo-runs``, ``phylo-trees``, ``auspice``, and ``usher``: trees, and their runs.

Runs are listed from either backend, and started, renamed, and deleted through the API.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from aspencli.cli import params
from aspencli.cli.app import examples, expanded
from aspencli.cli.app import group as command_group
from aspencli.cli.context import AppContext, Backend, current
from aspencli.cli.output.formats import LINK_COLUMNS, OUTCOME, Column, Row, prints, titled
from aspencli.errors import BadInputError
from aspencli.text import clean_name, counted

if TYPE_CHECKING:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.reference.remote import Scope
    from aspencli.remote.api import PhyloTrees
    from aspencli.remote.downloads import Downloaded, Landing, Progress
    from aspencli.remote.types import NewPhyloRun, PhyloRun


runs_app = command_group("List, start, rename, and delete runs that build phylogenetic trees.")

COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int),
    Column("name", "Name"),
    Column("workflow_status", "Status", whole=True, of=str),
    Column("tree_type", "Type"),
    *titled("group", "pathogen", secondary=True),
    Column("start_datetime", "Started", whole=True, of=dt.datetime | None),
    Column("end_datetime", "Ended", secondary=True, of=dt.datetime | None),
    Column("user", "Started by", secondary=True),
    Column("phylo_tree", "Tree", right=True, whole=True, of=int | None),
    Column("template_args", "Arguments", secondary=True, of=dict[str, Any]),
    Column("contextual_data_source", "Contextual data", secondary=True),
)
_CHANGED = {"id", "name", "workflow_status", "tree_type", "group", "start_datetime", "phylo_tree"}
_UNKNOWN = {"id": int | None, "workflow_status": str | None}  # in a plan
CHANGE_COLUMNS = (
    *(replace(c, of=_UNKNOWN.get(c.key, c.of)) for c in COLUMNS if c.key in _CHANGED),
    OUTCOME,
)
_OBJECT = 'Write an object: --template-args \'{"filter_start_date": "2023-01-01"}\'.'
_CREATE_EXAMPLES = examples(
    "aspencli phylo-runs create RCPHL-0000001 RCPHL-0000002 --name Cannery --tree-type targeted",
    "aspencli phylo-runs create --from ids.txt --name Cannery --tree-type overview "
    "--start-date 2023-01-01 --lineage BA.2",
    "aspencli phylo-runs create --from ids.txt --name Cannery --tree-type targeted --wait",
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


@runs_app.command("list", epilog=examples("aspencli phylo-runs list --group 1"))
@prints(COLUMNS)
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
        seen = context.remember(rows, kinds=("phylo_runs", "phylo_trees"))
        return context.out.rows(COLUMNS, seen, empty="No runs found.")
    database = context.database(early=True)
    from aspencli.phylo.database import list_runs

    with database.observing() as session:
        rows = list_runs(session, group=group, pathogen=pathogen)
        seen = context.remember(rows, kinds=("phylo_runs", "phylo_trees"))
        return context.out.rows(COLUMNS, seen, empty="No runs found.")


@dataclass(frozen=True, kw_only=True)
class TemplateOptions:
    """The options about the public samples that are added to a tree."""

    start_date: Annotated[
        str | None,
        params.text_option(
            "Earliest collection date.", "--start-date", "--filter-start-date", metavar="DATE"
        ),
    ] = None
    end_date: Annotated[
        str | None,
        params.text_option(
            "Latest collection date.", "--end-date", "--filter-end-date", metavar="DATE"
        ),
    ] = None
    lineages: Annotated[
        list[str] | None,
        typer.Option(
            "--lineage",
            "--filter-pango-lineages",
            metavar="NAME",
            help="Only this Pango lineage; can be repeated.",
        ),
    ] = None
    location: Annotated[
        str | None,
        params.place_option(
            "Location to focus on: an id, or Region / Country / Division / Location."
        ),
    ] = None
    template_args: Annotated[
        str | None,
        params.text_option(
            'Extra workflow arguments as an object: {"filter_start_date": "2023-01-01"}.',
            metavar="JSON",
        ),
    ] = None

    def days(self, context: AppContext) -> dict[str, str]:
        """Return the arguments that are days.

        Raises:
            BadInputError: One of them is not valid.
        """
        from aspencli.cli.params import parse_day

        said = {"filter_start_date": self.start_date, "filter_end_date": self.end_date}
        return {key: parse_day(context, key, day) for key, day in said.items() if day is not None}

    def arguments(self, context: AppContext, days: Mapping[str, str]) -> dict[str, object]:
        """Return the arguments for the workflow's template; empty if no option was given.

        Raises:
            BadInputError: The location or ``--template-args`` is not valid.
        """
        from aspencli.reference.remote import Gazetteer

        found = {**_arguments(self.template_args), **days}
        if self.lineages:
            found["filter_pango_lineages"] = self.lineages
        if self.location is not None:
            found["location_id"] = Gazetteer(context.api().locations).find(self.location)["id"]
        return found


@runs_app.command(epilog=_CREATE_EXAMPLES)
@expanded
@prints(CHANGE_COLUMNS)
def create(
    ctx: typer.Context,
    name: Name,
    tree_type: Annotated[
        TreeKind,
        typer.Option(case_sensitive=False, help="How to select the public samples to add."),
    ],
    *,
    samples: params.SampleOptions,
    template: TemplateOptions,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait until the tree is built; Ctrl-C leaves the run going."),
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", min=0, help="Longest time to --wait. Default: until it ends."
        ),
    ] = None,
    dry_run: params.DryRunOption = False,
    scoped: params.ScopeOptions,
) -> None:
    """Start a run that builds a phylogenetic tree of samples and related public samples.

    With --wait, the steps are shown on the local deployment, and the result contains the id of the
    tree. If the run fails, the exit code is 1; if it has not ended after --timeout, 5.
    """
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    if timeout is not None and not wait:
        raise BadInputError("--timeout requires --wait", hint="Add --wait, or omit --timeout.")
    days = template.days(context)
    ids, scope = params.chosen_samples(context, samples, scoped, writing=True)
    wanted: NewPhyloRun = {"name": name, "tree_type": tree_type.value.upper(), "samples": ids}
    if arguments := template.arguments(context, days):
        wanted["template_args"] = arguments
    wanted["samples"] = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    made: list[PhyloRun] = []
    change = _starting(context, scope, wanted, made, waits=wait)
    if not wait:
        return execute(change, dry_run=dry_run)
    return _start_and_wait(change, scope, made, timeout, dry_run=dry_run)


def _starting(
    context: AppContext, scope: Scope, wanted: NewPhyloRun, made: list[PhyloRun], *, waits: bool
) -> ItemChange:
    """Return the change that starts a run, and adds the run to ``made``."""
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.phylo.remote import start_run

    count = counted(len(wanted["samples"]), "sample")

    def start() -> Iterator[Sequence[Row]]:
        made.append(start_run(context.api().phylo_runs, scope, wanted))
        yield [run_outcome(made[0], "created")]

    return ItemChange(
        context,
        f"start run {wanted['name']!r} with {count} in {scope}",
        CHANGE_COLUMNS,
        [_new_row(scope, wanted)],
        start,
        done=lambda rows: f"Started run {rows[0]['id']}.",
        next="" if waits else "Check its status: aspencli phylo-runs list",
        single=True,
        group=scope.org,
        prints=not waits,
    )


def _new_row(scope: Scope, wanted: NewPhyloRun) -> Row:
    return {
        **{column.key: None for column in CHANGE_COLUMNS},
        "name": wanted["name"],
        "tree_type": wanted["tree_type"],
        "group": scope.org.name,
        "outcome": "create",
    }


def _start_and_wait(
    change: ItemChange, scope: Scope, made: list[PhyloRun], timeout: float | None, *, dry_run: bool
) -> None:
    """Start a run, wait for its end, and show it as it is then."""
    from aspencli.cli.changes.execute import execute
    from aspencli.cli.waiting import RunWait

    context = change.context
    waiting: RunWait | None = None
    try:
        execute(change, dry_run=dry_run)
        if made:
            waiting = RunWait(context, scope, made[0])
            waiting.until_it_ends(timeout)
    except KeyboardInterrupt:
        if made:
            (waiting or RunWait(context, scope, made[0])).leave()
        raise
    finally:
        if made:
            last = waiting.run if waiting else made[0]
            context.out.records(CHANGE_COLUMNS, [run_outcome(last, "created")])


@runs_app.command("rename", hidden=True, epilog=_UPDATE_EXAMPLES)
@runs_app.command(epilog=_UPDATE_EXAMPLES)
@expanded
@prints(CHANGE_COLUMNS)
def update(
    ctx: typer.Context,
    run: Annotated[int, typer.Argument(metavar="RUN", help="Run id.")],
    name: Name,
    *,
    dry_run: params.DryRunOption = False,
    scoped: params.ScopeOptions,
) -> None:
    """Rename a finished run and its tree."""
    from aspencli.cli.changes.execute import execute

    context = current(ctx)
    scope = params.chosen_scope(context, scoped, writing=True)
    execute(_renaming(context, scope, run, name), dry_run=dry_run)


def _renaming(context: AppContext, scope: Scope, run: int, name: str) -> ItemChange:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.phylo.remote import find_runs

    runs = context.api().phylo_runs
    (before,) = find_runs(runs, scope, [run])

    def rename() -> Iterator[Sequence[Row]]:
        yield [run_outcome(runs.rename(*scope.key, run, name), "updated")]

    return ItemChange(
        context,
        f"rename run {run} in {scope} from {before['name']!r} to {name!r}",
        CHANGE_COLUMNS,
        [run_outcome(before, "unchanged" if before["name"] == name else "update")],
        rename,
        done=lambda rows: f"Renamed run {run} to {rows[0]['name']!r}.",
        single=True,
        group=scope.org,
    )


@runs_app.command(epilog=_DELETE_EXAMPLES)
@expanded
@prints(CHANGE_COLUMNS)
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
    from aspencli.cli.changes.execute import execute
    from aspencli.phylo.remote import run_ids

    context = current(ctx)
    ids = run_ids(params.chosen_ids(context, runs, file, ("id",)))
    scope = params.chosen_scope(context, scoped, writing=True)
    execute(_deletion(context, scope, ids), dry_run=dry_run)


def _deletion(context: AppContext, scope: Scope, ids: Sequence[int]) -> ItemChange:
    from aspencli.cli.changes.execute import ItemChange
    from aspencli.phylo.remote import delete_runs, find_runs

    service = context.api().phylo_runs
    found = find_runs(service, scope, ids)
    rows = {run["id"]: run_outcome(run, "delete") for run in found}

    def remove() -> Iterator[Sequence[Row]]:
        for gone in delete_runs(service, scope, list(rows)):
            yield [{**rows[gone], "outcome": "deleted"}]

    return ItemChange(
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


trees_app = command_group("Download and open phylogenetic trees.")
auspice_app = command_group("Create links to view trees.")
usher_app = command_group("Place samples on UShER trees.")

TREE_COLUMNS = (
    Column("id", "Id", right=True, whole=True, of=int),
    Column("value", "Value", whole=True, of=str),
    Column("description", "Description", of=str),
    Column("priority", "Priority", right=True, of=int | None),
)
_PLACER = "https://genome.ucsc.edu/cgi-bin/hgPhyloPlace"
_GENOMES = {"SC2": "wuhCor1"}
"""UCSC's names of the reference genomes, by pathogen."""
_OPEN_EXAMPLES = examples(
    "aspencli phylo-trees open 61", "aspencli --env prod phylo-trees open 61 --print-url --for 30m"
)
CONSUMER = "USHER"
"""The consumer of the sequences, as reported to the service."""


class IdStyle(StrEnum):
    """The kinds of identifiers for the group's own samples in a download."""

    PRIVATE = "private"
    PUBLIC = "public"


Tree = Annotated[
    int,
    typer.Argument(metavar="TREE", min=0, help="Tree id; see: aspencli phylo-runs list."),
]


@dataclass(frozen=True, kw_only=True)
class TreeOptions(params.ScopeOptions, params.OutOptions):
    """A tree, and how to download it."""

    tree: Tree
    id_style: Annotated[
        IdStyle,
        typer.Option(
            metavar="STYLE",
            help="Identifiers to use for your group's own samples: private or public.",
        ),
    ] = IdStyle.PRIVATE


@trees_app.command(epilog=examples("aspencli phylo-trees download 61 --out tree.json"))
@expanded
def download(ctx: typer.Context, given: TreeOptions) -> None:
    """Download a tree as JSON for Auspice.

    With private identifiers, the public ones are attributes of the samples, such as GISAID_ID.
    """
    from aspencli.phylo.document import conform

    name = f"tree_{given.tree}.json"
    _download(current(ctx), given, name, "tree", lambda trees: trees.download, change=conform)


@trees_app.command("selected-samples", epilog=examples("aspencli phylo-trees selected-samples 61"))
@expanded
def selected_samples(ctx: typer.Context, given: TreeOptions) -> None:
    """Download the samples of a tree as TSV, marking those that were selected for it."""
    name = f"tree_{given.tree}_samples.tsv"
    _download(current(ctx), given, name, "samples of tree", lambda trees: trees.samples)


def _download(
    context: AppContext,
    given: TreeOptions,
    usual: str,
    what: str,
    method: Callable[[PhyloTrees], Callable[..., Downloaded]],
    *,
    change: Callable[[bytes], bytes] | None = None,
) -> None:
    from aspencli.cli.downloads import destination, download_changed, report_saved, run_download

    scope = params.chosen_scope(context, given)
    public = given.id_style is IdStyle.PUBLIC
    fetch = partial(method(context.api().phylo_trees), *scope.key, given.tree, public_ids=public)

    def take(landing: Landing, progress: Progress) -> Downloaded:
        return fetch(landing=landing, progress=progress)

    place = destination(context, given, usual)
    described = f"{what} {given.tree} ({given.id_style} identifiers)"
    if change is None:
        size = run_download(context, place, described, take)
    else:
        size = download_changed(context, place, described, take, change)
    report_saved(context, place, size)


@trees_app.command("open", epilog=_OPEN_EXAMPLES)
@expanded
@prints(LINK_COLUMNS)
def open_(
    ctx: typer.Context,
    tree: Tree,
    *,
    copy: Annotated[
        str | None,
        typer.Option(
            "--auspice",
            metavar="PATH",
            help="Use this copy of Auspice: the folder of its npm package, or the package file.",
        ),
    ] = None,
    print_url: Annotated[
        bool, typer.Option("--print-url", help="Only print the address; open no browser.")
    ] = False,
    period: Annotated[
        str | None,
        params.text_option("Close it after this time, such as 10m or 2h.", "--for", metavar="TIME"),
    ] = None,
    scoped: params.ScopeOptions,
) -> None:
    """Show a tree in the browser, in a copy of Auspice on this machine.

    You see what your sign-in may see: private identifiers of your group's samples, if your role
    allows that. The page is only for you: other users of this machine and other web pages cannot
    read it, and it sends nothing to other hosts, so the map has no background. Ctrl-C closes it.

    Auspice is a program of the Nextstrain project (AGPL-3.0). It is fetched once with npm, after
    asking, and its checksum is verified each time. Without it, the address of the tree at
    nextstrain.org is printed instead.
    """
    from aspencli.cli.durations import parse_duration
    from aspencli.cli.viewing import show

    context = current(ctx)
    limit = None if period is None else parse_duration(period, "--for")
    scope = params.chosen_scope(context, scoped)
    show(context, scope, tree, copy=copy, browser=not print_url, period=limit)


@auspice_app.command(epilog=examples("aspencli auspice link 61"))
@expanded
@prints(LINK_COLUMNS)
def link(ctx: typer.Context, tree: Tree, scoped: params.ScopeOptions) -> None:
    """Create a link that lets anyone view a tree for a week.

    On the live service as last published, anyone with the link can do everything there that you
    can, until it expires. Treat it like your password.
    """
    from aspencli.cli.viewing import LINK_WARNING
    from aspencli.phylo.remote import with_scheme

    context = current(ctx)
    scope = params.chosen_scope(context, scoped)
    api = context.api()
    found = api.phylo_trees.auspice_link(*scope.key, tree)
    context.out.warn(LINK_WARNING)
    context.out.rows(LINK_COLUMNS, [{"url": with_scheme(found, context.access.at.api_url)}])


@usher_app.command("get-tree-versions", epilog=examples("aspencli usher get-tree-versions"))
@prints(TREE_COLUMNS)
def get_tree_versions(ctx: typer.Context, via: params.ViaOption = None) -> None:
    """List the UShER trees available for the pathogen, the default one first."""
    context = current(ctx)
    backend = context.choose_backend(via)
    slug = context.config.value("pathogen_slug") or ""
    context.announce(backend)
    if backend is Backend.API:
        from aspencli.reference.remote import find_org, find_slugs

        api = context.api()
        org, (slug,) = find_org(api, params.chosen_org(context)), find_slugs(api, slug)
        trees = api.usher_trees(org.id, slug)
        return context.out.rows(TREE_COLUMNS, trees, empty="No trees found.")
    database = context.database(early=True)
    from aspencli.phylo.database import list_usher_trees

    with database.observing() as session:
        found = list_usher_trees(session, slug)
        return context.out.rows(TREE_COLUMNS, found, empty="No trees found.")


SubtreeSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Print a link to UCSC's UShER instead, for a subtree of N samples.",
    ),
]


@usher_app.command(
    "get-link", epilog=examples("aspencli usher get-link RCPHL-0000001 RCPHL-0000002 --output json")
)
@expanded
@prints(LINK_COLUMNS)
def get_link(
    ctx: typer.Context,
    *,
    samples: params.SampleOptions,
    subtree_size: SubtreeSize = None,
    scoped: params.ScopeOptions,
) -> None:
    """Create a link from which UShER, or anyone, can download sequences for an hour.

    Enter it in UShER as the URL of a FASTA file, with a tree listed by get-tree-versions. Or pass
    --subtree-size to get a link that opens UShER directly.
    """
    context = current(ctx)
    ids, scope = params.chosen_samples(context, samples, scoped)
    genome = _genome(scope.slug) if subtree_size is not None else None
    known = params.known_ids(context, scope, ids, skip_missing=samples.skip_missing)
    url = context.api().samples.fasta_link(*scope.key, known, CONSUMER)
    if genome is not None:
        asked = {"db": genome, "remoteFile": url, "subtreeSize": subtree_size}
        url = f"{_PLACER}?{urlencode(asked)}"
    context.out.warn("Anyone with this link can download the sequences for an hour.")
    context.out.rows(LINK_COLUMNS, [{"url": url}])


def _genome(slug: str) -> str:
    """Return UCSC's name of a pathogen's reference genome.

    Raises:
        BadInputError: If UCSC does not support this pathogen.
    """
    if slug not in _GENOMES:
        raise BadInputError(
            f"Invalid pathogen for --subtree-size: {slug!r} (choose {', '.join(_GENOMES)})",
            hint="Omit --subtree-size, then enter the link in UShER yourself.",
        )
    return _GENOMES[slug]
