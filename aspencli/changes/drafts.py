"""Files that appear under their final name only once they are complete."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from aspencli import files, paths
from aspencli.errors import AspenError, BadInputError
from aspencli.files import why_not


class Draft:
    """A file opened before any work is done, so that an unusable path is found in time.

    Args:
        path: The final path; an existing file is replaced.
        kind: The word for the file in messages, such as ``report``.
        suffixes: The suffixes that are allowed.

    Attributes:
        file: The temporary file to write to.
        suffix: The suffix of the path.

    Raises:
        BadInputError: The path exists and is not a file, or its suffix is not allowed.
        AspenError: The file cannot be created.
    """

    def __init__(self, path: Path, kind: str, suffixes: Collection[str]):
        self._kind = kind
        self._path = paths.expand(path)
        if self._path.exists() and not self._path.is_file():
            raise BadInputError(
                f"The {kind} {path} is not a regular file.",
                hint="Give a file; it will be created or replaced.",
            )
        files.check_own(self._path)
        self._target = self._path.absolute()
        suffix = self._path.suffix.lower()
        self.suffix = suffix if suffix in suffixes else ""
        if not self.suffix:
            *others, last = suffixes
            raise BadInputError(
                f"Unsupported file type for the {kind}: {path} "
                f"(choose {', '.join(others)}, or {last})",
                hint=f"For example: {self._path.stem}{others[0]}",
            )
        try:
            files.make_folder(self._target.parent)
            self.file = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed by __exit__
                dir=self._target.parent, delete=False
            )
        except OSError as error:
            raise self.unwritable(error, "nothing was written") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.file.close()
        except OSError:  # closing retries a write that failed because the disk was full
            if error is None:
                raise
        finally:
            Path(self.file.name).unlink(missing_ok=True)

    def publish(self) -> Path:
        """Move the file to its final path, and return that path."""
        try:
            Path(self.file.name).replace(self._target)
        except OSError as error:
            raise self.unwritable(error, "the change itself is complete") from error
        return self._path

    def unwritable(self, error: OSError, state: str) -> AspenError:
        """Return the error for a file that cannot be written.

        Args:
            error: The cause.
            state: The outcome of the change, in words.
        """
        option = self._kind.split(maxsplit=1)[0]
        return AspenError(
            f"Cannot write the {self._kind} {self._path}: {why_not(self._target, error)}; {state}.",
            hint=f"Free disk space or fix the permissions, or choose another path with --{option}.",
        )
