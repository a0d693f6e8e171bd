"""Replace the list of a pathogen's lineages."""

from __future__ import annotations

from datetime import UTC, datetime

from aspen.workflows.access import find_pathogen, opened
from aspen.workflows.imports.lineages import read_lineages, replace_lineages
from aspen.workflows.jobs import FileParameters
from aspen.workflows.programs import say
from aspen.workflows.reading import fetch
from aspen.workflows.steps import Workspace
from aspen.workflows.store import lineage_notes_key

_SC2 = "SC2"


def run(workspace: Workspace) -> None:
    """Run the step."""
    parameters = workspace.parameters(FileParameters)
    with opened(workspace) as database:
        with database.reading() as session:
            pathogen, _ = find_pathogen(session, parameters.pathogen)
        path = fetch(parameters.file, workspace.out)
        names = read_lineages(path, parameters.pathogen)
        if parameters.pathogen == _SC2:
            # The copy stays even if the transaction fails; no row refers to it.
            workspace.store.upload(path, lineage_notes_key(datetime.now(UTC)))
        with database.begin() as session:
            done = replace_lineages(session, pathogen, names)
    say(f"{parameters.pathogen}: {done}")
