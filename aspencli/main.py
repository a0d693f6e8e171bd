"""The root command: the ordered list of its groups, and the entry point of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

from typer.core import TyperGroup
from typer.main import get_command

from aspencli.cli import AspenTyper, Entry, RootGroup
from aspencli.context import AppContext
from aspencli.failures import finish
from aspencli.interrupts import obey_sigterm
from db import libpq

ENTRIES = (
    Entry(
        "samples",
        "aspencli.commands.samples",
        "List, make, change and delete samples, and download what is made of them.",
        ("sample",),
    ),
    Entry(
        "users",
        "aspencli.commands.users",
        "List and onboard users, and see to your own account.",
        ("user", "userinfo"),
    ),
    Entry(
        "groups",
        "aspencli.commands.groups",
        "List, look into, make and import groups, and invite to them.",
        ("group",),
    ),
    Entry("phylo-runs", "aspencli.commands.phylo_runs", "Runs that make phylogenetic trees."),
    Entry("phylo-trees", "aspencli.commands.phylo_trees", "Phylogenetic trees as files."),
    Entry("qc-mutations", "aspencli.commands.qc_mutations", "Quality and mutations of samples."),
    Entry("usher", "aspencli.commands.usher", "Place samples on the trees of UShER."),
    Entry(
        "locations",
        "aspencli.commands.locations",
        "Places that samples come from and trees are about.",
        ("location",),
    ),
    Entry("pathogens", "aspencli.commands.pathogens", "The pathogens that samples are of."),
    Entry("lineages", "aspencli.commands.lineages", "Lineages of pathogens."),
    Entry("auspice", "aspencli.commands.auspice", "Links that show trees."),
    Entry("history", "aspencli.commands.history", "Bulk runs made from this machine."),
    Entry(
        "db", "aspencli.commands.db", "Console, psql, schema migrations and state of the database."
    ),
    Entry("local", "aspencli.commands.local", "A whole deployment on this machine."),
    Entry("auth", "aspencli.commands.auth", "Sign in to a target, and see who is signed in."),
    Entry("config", "aspencli.commands.config", "What is set, and where it comes from."),
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
        return command().main(
            args=list(sys.argv[1:] if args is None else args),
            prog_name="aspencli",
            standalone_mode=False,
            obj=context,
        )

    with context:
        return finish(context, invoke)
