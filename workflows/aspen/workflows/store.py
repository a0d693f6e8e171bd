"""Files of jobs in the bucket: their keys, and reading and writing objects.

The keys are those of the live service, whose readers depend on them; no other module builds one.
"""

from __future__ import annotations

from dataclasses import dataclass
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
