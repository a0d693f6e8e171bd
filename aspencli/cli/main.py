"""The root command: the ordered list of its groups, and the entry point of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from aspen.database import libpq
from aspencli.cli.app import (
    DOCS,
    AspenTyper,
    Entry,
    RootGroup,
    complete_command,
    examples,
    find_command,
    version_line,
)
from aspencli.cli.context import AppContext
from aspencli.cli.failures import finish
from aspencli.signals import obey_sigterm

ENTRIES = (
    Entry(
        "samples",
        "aspencli.cli.commands.samples",
        "List, create, update, delete, and download samples.",
        ("sample",),
    ),
    Entry(
        "users",
        "aspencli.cli.commands.users",
        "List, show, create, and import users, and manage your own account.",
        ("user", "userinfo"),
    ),
    Entry(
        "groups",
        "aspencli.cli.commands.groups",
        "List, show, create, and import groups, and invite people to them.",
        ("group",),
    ),
    Entry(
        "phylo-runs",
        "aspencli.cli.commands.phylo_runs",
        "List, start, rename, and delete runs that build phylogenetic trees.",
    ),
    Entry("phylo-trees", "aspencli.cli.commands.phylo_trees", "Download phylogenetic trees."),
    Entry(
        "qc-mutations",
        "aspencli.cli.commands.reference:qc_mutations_app",
        "Download quality control results and mutations of samples.",
    ),
    Entry(
        "usher",
        "aspencli.cli.commands.phylo_trees:usher_app",
        "Place samples on UShER trees.",
    ),
    Entry(
        "locations",
        "aspencli.cli.commands.reference:locations_app",
        "List and search locations of samples and trees.",
        ("location",),
    ),
    Entry(
        "pathogens",
        "aspencli.cli.commands.reference:pathogens_app",
        "List pathogens.",
    ),
    Entry(
        "lineages",
        "aspencli.cli.commands.reference:lineages_app",
        "List the lineages of a pathogen.",
    ),
    Entry(
        "auspice", "aspencli.cli.commands.phylo_trees:auspice_app", "Create links to view trees."
    ),
    Entry(
        "history",
        "aspencli.cli.commands.history",
        "Show runs made from this machine, and remove old ones.",
    ),
    Entry(
        "db",
        "aspencli.cli.commands.db",
        "Console, psql, schema migrations, and database health.",
    ),
    Entry("local", "aspencli.cli.commands.local", "Run a full deployment on this machine."),
    Entry("auth", "aspencli.cli.commands.auth", "Sign in to a target, and show who is signed in."),
    Entry("config", "aspencli.cli.commands.config", "Show settings and where they come from."),
)


class Root(RootGroup):
    """The root group of aspencli."""

    entries = ENTRIES


_ABOUT = "Administer CZ GEN EPI (Aspen): its database and its API, on the target you choose."
_EXAMPLES = examples(
    "aspencli --env staging auth login",
    "aspencli samples list --group CZI --collected-after 2023-01-01",
    "aspencli --env staging samples update-public-ids --group-id 1 -f ids.csv --dry-run",
    "aspencli --env prod db psql -c 'SELECT count(*) FROM samples'",
    "aspencli local up",
)

app: typer.Typer = AspenTyper(
    cls=Root,
    help=_ABOUT,
    epilog=(
        f"{_EXAMPLES}\n\nHelp on a command: aspencli help COMMAND, or aspencli COMMAND --help\n\n"
        f"Documentation: {DOCS}"
    ),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Administer CZ GEN EPI (Aspen): its database and its API, on the target you choose."""


@app.command("help", epilog=examples("aspencli help", "aspencli help samples list"))
def show_help(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]...",
            help="A command, such as samples list. Default: all of them.",
            autocompletion=complete_command,
        ),
    ] = None,
) -> None:
    """Show the help of a command, as --help does."""
    found = find_command(ctx.find_root(), words or ())
    typer.echo(found.get_help())


@app.command("version", epilog=examples("aspencli version"))
def show_version() -> None:
    """Show the version, as --version does."""
    typer.echo(version_line())


def command() -> TyperGroup:
    """Return the whole command line as one command object."""
    found = get_command(app)  # not get_group, which has no shell completion
    assert isinstance(found, TyperGroup)  # noqa: S101 - its callback makes it a group
    return found


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    context = AppContext()
    obey_sigterm()
    # Only the target's address may determine where connections go.
    libpq.forget(libpq.MISLEADING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the locale cannot encode are escaped instead of ending the run.
            stream.reconfigure(errors="backslashreplace")

    def invoke() -> Any:
        with context.recording():
            return command().main(
                args=list(sys.argv[1:] if args is None else args),
                prog_name="aspencli",
                standalone_mode=False,
                obj=context,
            )

    with context:
        return finish(context, invoke)
