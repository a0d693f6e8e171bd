"""Get the dump of a public repository, check it, and write it in the form that jobs read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aspen.database.models import RepositoryDownloadWorkflow
from aspen.workflows.access import opened
from aspen.workflows.imports.coordinates import read_coordinates
from aspen.workflows.imports.dump import (
    METADATA,
    SEQUENCES,
    Dump,
    Names,
    process_metadata,
    process_sequences,
)
from aspen.workflows.imports.failures import recorded
from aspen.workflows.imports.repository import find_source
from aspen.workflows.jobs import RepositoryParameters
from aspen.workflows.programs import say
from aspen.workflows.reading import fetch
from aspen.workflows.steps import StepError, Workspace
from aspen.workflows.store import DumpKeys

RAW_METADATA, RAW_SEQUENCES, COORDINATES = "raw-metadata", "raw-sequences", "coordinates"
"""The folders of the files as they came."""


def run(workspace: Workspace) -> None:
    """Run the step."""
    with recorded(workspace, RepositoryDownloadWorkflow, started=_now()):
        _run(workspace)


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


def _run(workspace: Workspace) -> None:
    parameters, started = workspace.parameters(RepositoryParameters), _now()
    with opened(workspace) as database, database.reading() as session:
        source = find_source(session, parameters.pathogen, parameters.repository)
    for name in (RAW_METADATA, RAW_SEQUENCES, COORDINATES):
        (workspace.out / name).mkdir(exist_ok=True)
    if parameters.coordinates:
        read_coordinates(fetch(parameters.coordinates, workspace.out / COORDINATES))
    say(f"Getting {parameters.metadata}")
    metadata = fetch(parameters.metadata, workspace.out / RAW_METADATA)
    names = Names(source.prefix)
    rows = process_metadata(metadata, workspace.out / METADATA, parameters.repository, names)
    sequences = _fetch_sequences(parameters, workspace, metadata)
    dump = Dump(
        pathogen=parameters.pathogen,
        repository=parameters.repository,
        time=DumpKeys.time_of(started),
        started=started.isoformat(),
        metadata=metadata.name,
        sequences=sequences.name,
        rows=rows,
    )
    dump = process_sequences(sequences, workspace.out / SEQUENCES, names, dump)
    dump.ended_now(_now()).write(workspace.out)


def _fetch_sequences(
    parameters: RepositoryParameters, workspace: Workspace, metadata: Path
) -> Path:
    say(f"Getting {parameters.sequences}")
    sequences = fetch(parameters.sequences, workspace.out / RAW_SEQUENCES)
    if sequences.name == metadata.name:
        raise StepError(f"The metadata and the sequences are both named {metadata.name}.")
    return sequences
