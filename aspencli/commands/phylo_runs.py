"""``aspencli phylo-runs``: the runs that build phylogenetic trees."""

from __future__ import annotations

import typer

from aspencli import params
from aspencli.cli import examples
from aspencli.cli import group as command_group
from aspencli.commands import phylo_runs_editing
from aspencli.context import current
from aspencli.output.rendering import Column
from aspencli.params import Road

app = command_group("Runs that make phylogenetic trees.")

COLUMNS = (
    Column("id", "Id", right=True, whole=True),
    Column("name", "Name"),
    Column("workflow_status", "Status", whole=True),
    Column("tree_type", "Type"),
    Column("group", "Group", secondary=True),
    Column("pathogen", "Pathogen", secondary=True),
    Column("start_datetime", "Started", whole=True),
    Column("end_datetime", "Ended", secondary=True),
    Column("user", "By", secondary=True),
    Column("phylo_tree", "Tree", right=True, whole=True),
    Column("template_args", "Asked for", secondary=True),
    Column("contextual_data_source", "Compared with", secondary=True),
)


@app.command("list", epilog=examples("aspencli phylo-runs list --group 1"))
def list_(
    ctx: typer.Context,
    group: params.GroupOption = None,
    pathogen: params.PathogenOption = None,
    via: params.ViaOption = None,
) -> None:
    """List the runs, with the id of the tree of each that has one."""
    context = current(ctx)
    road = params.chosen_road(context, via)
    group = params.chosen_group(context, group)
    pathogen = params.chosen_pathogen(context, pathogen)
    params.announce(context, road)
    if road is Road.API:
        from aspencli.services.phylo_run_rows import ask_runs

        org = params.chosen_org(context)
        rows = ask_runs(context.api(), group=group, pathogen=pathogen, org=org)
        return context.out.rows(COLUMNS, map(vars, rows), empty="no runs found")
    from aspencli.services.phylo_runs import list_runs

    with context.database().reading() as session:
        rows = list_runs(session, group=group, pathogen=pathogen)
        return context.out.rows(COLUMNS, map(vars, rows), empty="no runs found")


phylo_runs_editing.register(app)
