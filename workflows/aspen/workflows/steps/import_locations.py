"""Add the places of a pathogen's public metadata and of a file, with their coordinates."""

from __future__ import annotations

from aspen.workflows.access import find_pathogen, opened
from aspen.workflows.imports.coordinates import read_coordinates
from aspen.workflows.imports.locations import add_places
from aspen.workflows.jobs import FileParameters
from aspen.workflows.programs import say
from aspen.workflows.reading import fetch
from aspen.workflows.steps import Workspace


def run(workspace: Workspace) -> None:
    """Run the step."""
    parameters = workspace.parameters(FileParameters)
    with opened(workspace) as database:
        with database.reading() as session:
            pathogen, _ = find_pathogen(session, parameters.pathogen)
        coordinates = read_coordinates(fetch(parameters.file, workspace.out))
        with database.begin() as session:
            done = add_places(session, pathogen=pathogen, coordinates=coordinates)
    say(str(done))
