"""Files of jobs in the bucket: their keys, and reading and writing objects.

The keys are those of the live service, whose readers depend on them; no other module builds one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from aspen.workflows.surroundings import Surroundings

TREE_NAMES = {"SC2": "ncov_aspen.json", "MPX": "mpx_czge.json"}
"""The name of the Auspice JSON of a tree, by pathogen."""
BUILD_NAMES = {"SC2": "builds.yaml", "MPX": "build_czge.yaml"}
"""The name of the build's configuration, by pathogen."""
INCLUDE_NAME = "include.txt"


@dataclass(frozen=True)
class TreeKeys:
    """The keys of one tree run's files."""

    filestem: str  # {place}/{tree type}; may contain spaces
    run_id: int
    pathogen: str  # its slug

    @property
    def folder(self) -> str:
        """Return the beginning of all keys, with a slash at its end."""
        return f"phylo_run/{self.filestem}/{self.run_id}/"

    @property
    def tree(self) -> str:
        """Return the key of the Auspice JSON."""
        return self.folder + TREE_NAMES.get(self.pathogen, "ncov_aspen.json")

    @property
    def builds(self) -> str:
        """Return the key of the build's configuration."""
        return self.folder + BUILD_NAMES.get(self.pathogen, "builds.yaml")

    @property
    def include(self) -> str:
        """Return the key of the list of samples that the tree must contain."""
        return self.folder + INCLUDE_NAME

    def log(self, name: str) -> str:
        """Return the key of a log that is kept because the run failed."""
        return f"{self.folder}logs/{name}"


@dataclass(frozen=True)
class DumpKeys:
    """The keys of one import of a public repository: as it came, processed, and aligned.

    Attributes:
        pathogen: The slug of the pathogen.
        repository: The name of the repository, such as GenBank.
        time: The beginning of the import; see `time_of`.
    """

    pathogen: str
    repository: str
    time: str

    @staticmethod
    def time_of(now: datetime) -> str:
        """Return a time as keys have it.

        The live service stops at the minute, in which two imports can begin; readers take the keys
        from the database.
        """
        return f"{now:%Y%m%d-%H%M%S%f}"

    def raw(self, name: str) -> str:
        """Return the key of a file as it was downloaded."""
        return f"raw_{self._source}_dump/{self.time}/{name}"

    @property
    def sequences(self) -> str:
        """Return the key of the processed sequences."""
        return f"processed_{self._source}_dump/{self.time}/sequences.fasta.zst"

    @property
    def metadata(self) -> str:
        """Return the key of the processed metadata."""
        return f"processed_{self._source}_dump/{self.time}/metadata.tsv.xz"

    @property
    def aligned_sequences(self) -> str:
        """Return the key of the aligned sequences."""
        name = f"aligned_{self._source}" if self._is_first else "alignment"
        return f"aligned_{self._source}_dump/{self.time}/{name}.fasta.xz"

    @property
    def aligned_metadata(self) -> str:
        """Return the key of the metadata of the aligned sequences."""
        name = f"sanitized_metadata_{self._source}" if self._is_first else "metadata"
        return f"aligned_{self._source}_dump/{self.time}/{name}.tsv.xz"

    @property
    def _is_first(self) -> bool:
        """Return True for the pathogen whose keys are older than the others'."""
        return self.pathogen == "SC2"

    @property
    def _source(self) -> str:
        repository = self.repository.lower()
        return repository if self._is_first else f"{repository}_{self.pathogen.lower()}"


def lineage_notes_key(now: datetime) -> str:
    """Return the key of a list of Pango lineages that was imported at a time with a zone."""
    return f"pangolin_lineages/{now:%Y-%m-%d_%H%M%z}_lineage_notes.txt"


class Store:
    """The bucket of the database's files."""

    def __init__(self, surroundings: Surroundings):
        self.bucket = surroundings.bucket
        self._surroundings = surroundings
        self._client: Any = None

    def upload(self, path: Path, key: str) -> None:
        """Write a file to the bucket as a whole; readers see the old object or the new one."""
        self._s3().upload_file(str(path), self.bucket, key)

    def download(self, key: str, path: Path, *, bucket: str | None = None) -> None:
        """Write an object to a file."""
        self._s3().download_file(bucket or self.bucket, key, str(path))

    def read(self, key: str) -> bytes:
        """Return the content of an object."""
        body: bytes = self._s3().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body

    def _s3(self) -> Any:
        if self._client is None:
            self._client = self._surroundings.aws("s3")
        return self._client


class FileKind(StrEnum):
    """A kind of object in the bucket, as its key tells."""

    TREE = "tree"
    """The Auspice JSON of a tree."""
    BUILD = "build"
    """The configuration of a tree's build."""
    INCLUDE = "include"
    """The list of samples that a tree must contain."""
    LOG = "log"
    """A log that is kept because a job failed."""
    RAW = "raw-dump"
    """A public repository's data as downloaded."""
    PROCESSED = "processed-dump"
    """A public repository's data, split into sequences and metadata."""
    ALIGNED = "aligned-dump"
    """A public repository's aligned sequences, with their metadata."""
    LINEAGES = "lineages"
    """A list of lineages, as downloaded."""
    OTHER = "other"
    """Anything else, such as the audit trail of the command line."""


@dataclass(frozen=True)
class FileKey:
    """The meaning of a key: the kind of object, and the ID of the tree run that it belongs to."""

    kind: FileKind
    run_id: int | None = None


RUNS = "phylo_run"
"""The beginning of the keys of all files of tree runs, also of those of the local test data."""
_RUN = re.compile(r"phylo_run/.+?/[A-Z_]+/(?P<run>[1-9]\d{0,17})/(?P<name>.+)", re.DOTALL)
# The trees of the local test data, which no run has built.
_SEEDED = re.compile(r"phylo_runs/(?P<run>[1-9]\d{0,17})/tree\.json")
_LOGS = re.compile(r"(?:aligned|processed|raw)_\w+/(?:[^/]+/)*logs/.+", re.DOTALL)
_OTHERS = (
    (re.compile(r"raw_\w+_dump/."), FileKind.RAW),
    (re.compile(r"processed_\w+_dump/."), FileKind.PROCESSED),
    (re.compile(r"aligned_\w+_dump/.|aligned_repository_data/."), FileKind.ALIGNED),
    (re.compile(r"pangolin_lineages/."), FileKind.LINEAGES),
)


def parse_key(key: str) -> FileKey:
    """Return the meaning of a key; that of a foreign one is `FileKind.OTHER`."""
    if found := _SEEDED.fullmatch(key):
        return FileKey(FileKind.TREE, int(found["run"]))
    if found := _RUN.fullmatch(key):
        return FileKey(_kind_of(found["name"]), int(found["run"]))
    if _LOGS.fullmatch(key):
        return FileKey(FileKind.LOG)
    return FileKey(next((kind for like, kind in _OTHERS if like.match(key)), FileKind.OTHER))


def _kind_of(name: str) -> FileKind:
    """Return the kind of a file of a tree run by its name, which follows the run's ID."""
    if name in TREE_NAMES.values():
        return FileKind.TREE
    if name in BUILD_NAMES.values():
        return FileKind.BUILD
    if name == INCLUDE_NAME:
        return FileKind.INCLUDE
    return FileKind.LOG if name.startswith("logs/") else FileKind.OTHER
