"""The root command: the ordered list of its groups, and the entry point of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from aspen.database import libpq
from aspencli.cli.app import AspenTyper, Entry, RootGroup
from aspencli.cli.context import AppContext
from aspencli.cli.failures import finish
from aspencli.signals import obey_sigterm

ENTRIES = (
    Entry(
        "samples",
        "aspencli.cli.commands.samples",
        "List, make, change and delete samples, and download what is made of them.",
        ("sample",),
    ),
    Entry(
        "users",
        "aspencli.cli.commands.users",
        "List and onboard users, and see to your own account.",
        ("user", "userinfo"),
    ),
    Entry(
        "groups",
        "aspencli.cli.commands.groups",
        "List, look into, make and import groups, and invite to them.",
        ("group",),
    ),
    Entry("phylo-runs", "aspencli.cli.commands.phylo_runs", "Runs that make phylogenetic trees."),
    Entry("phylo-trees", "aspencli.cli.commands.phylo_trees", "Phylogenetic trees as files."),
    Entry(
        "qc-mutations",
        "aspencli.cli.commands.reference:qc_mutations_app",
        "Quality and mutations of samples.",
    ),
    Entry(
        "usher",
        "aspencli.cli.commands.phylo_trees:usher_app",
        "Place samples on the trees of UShER.",
    ),
    Entry(
        "locations",
        "aspencli.cli.commands.reference:locations_app",
        "Places that samples come from and trees are about.",
        ("location",),
    ),
    Entry(
        "pathogens",
        "aspencli.cli.commands.reference:pathogens_app",
        "The pathogens that samples are of.",
    ),
    Entry("lineages", "aspencli.cli.commands.reference:lineages_app", "Lineages of pathogens."),
    Entry("auspice", "aspencli.cli.commands.phylo_trees:auspice_app", "Links that show trees."),
    Entry("history", "aspencli.cli.commands.history", "Bulk runs made from this machine."),
    Entry(
        "db",
        "aspencli.cli.commands.db",
        "Console, psql, schema migrations and state of the database.",
    ),
    Entry("local", "aspencli.cli.commands.local", "A whole deployment on this machine."),
    Entry("auth", "aspencli.cli.commands.auth", "Sign in to a target, and see who is signed in."),
    Entry("config", "aspencli.cli.commands.config", "What is set, and where it comes from."),
)


class Root(RootGroup):
    """The root group of aspencli."""

    entries = ENTRIES


app = AspenTyper(
    cls=Root,
    help="Administer CZ GEN EPI (Aspen): its database and its API, on the target you choose.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Administer CZ GEN EPI (Aspen): its database and its API, on the target you choose."""


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
