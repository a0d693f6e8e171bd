"""Store the dump in the bucket, and then its rows, all of them or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aspen.database.models import RepositoryAlignmentWorkflow
from aspen.workflows.access import opened
from aspen.workflows.imports import repository
from aspen.workflows.imports.coordinates import read_coordinates
from aspen.workflows.imports.dump import ALIGNED, METADATA, SEQUENCES, Dump
from aspen.workflows.imports.failures import recorded
from aspen.workflows.programs import say
from aspen.workflows.steps import Workspace
from aspen.workflows.steps.repository_fetch import COORDINATES, RAW_METADATA, RAW_SEQUENCES
from aspen.workflows.store import DumpKeys


def run(workspace: Workspace) -> None:
    """Run the step."""
    fetched = Dump.read(workspace.of("repository-fetch"))
    aligned = Dump.read(workspace.of("repository-align"))
    since = aligned.began
    with recorded(workspace, RepositoryAlignmentWorkflow, started=since):
        dump = replace(fetched, aligned_by=aligned.aligned_by)
        _run(workspace, dump, aligned.started)


def _run(workspace: Workspace, dump: Dump, aligned_since: str) -> None:
    source, store = workspace.of("repository-fetch"), workspace.store
    with opened(workspace) as database:
        with database.reading() as session:
            if repository.is_saved(session, store.bucket, dump):
                say("An earlier attempt stored everything.")
                return
        for path, key in _objects(workspace, dump):
            store.upload(path, key)
            say(f"Stored s3://{store.bucket}/{key} ({path.stat().st_size:,} bytes)")
        given = next((source / COORDINATES).iterdir(), None)
        coordinates = read_coordinates(given) if given else None
        done = repository.save(
            database, store.bucket, dump, aligned_since, source / METADATA, coordinates
        )
    say(f"{done.rows:,} rows of metadata; {done.accessions:,} accessions changed; {done.places}")


def _objects(workspace: Workspace, dump: Dump) -> tuple[tuple[Path, str], ...]:
    """Return the files that are stored, with their keys."""
    source, aligned = workspace.of("repository-fetch"), workspace.of("repository-align")
    keys = DumpKeys(dump.pathogen, dump.repository, dump.time)
    return (
        (source / RAW_METADATA / dump.metadata, keys.raw(dump.metadata)),
        (source / RAW_SEQUENCES / dump.sequences, keys.raw(dump.sequences)),
        (source / METADATA, keys.metadata),
        (source / SEQUENCES, keys.sequences),
        (aligned / METADATA, keys.aligned_metadata),
        (aligned / ALIGNED, keys.aligned_sequences),
    )
