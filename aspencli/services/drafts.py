"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Self

from aspencli import files, homes
from aspencli.errors import AspenError, BadInputError
from aspencli.services.writing import why_not


class Draft:
    """A file that is begun before anything is done, so that a bad place is found out in time.

    Args:
        path: Where it shall be; what is there is replaced.
        kind: What messages call it, such as ``report``.
        suffixes: Those that it may have.

    Attributes:
        file: What is written so far.
        suffix: Which of the suffixes it has.

    Raises:
        BadInputError: There is something that is no file, or it has another suffix.
        AspenError: Nothing can be written there.
    """

    def __init__(self, path: Path, kind: str, suffixes: Collection[str]):
        self._kind = kind
        self._path = homes.expand(path)
        if self._path.exists() and not self._path.is_file():
            raise BadInputError(
                f"the {kind} {path} is no file", hint="Name a file; it is made or replaced."
            )
        files.check_own(self._path)
        self._target = self._path.absolute()
        suffix = self._path.suffix.lower()
        self.suffix = suffix if suffix in suffixes else ""
        if not self.suffix:
            *others, last = suffixes
            raise BadInputError(
                f"the {kind} {path} ends in none of {', '.join(others)} and {last}, "
                "which tell how it is written",
                hint=f"Name it {self._path.stem}{others[0]}, for example.",
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
        except OSError:  # it writes once more what did not find room before
            if error is None:
                raise
        finally:
            Path(self.file.name).unlink(missing_ok=True)

    def publish(self) -> Path:
        """Give it its name."""
        try:
            Path(self.file.name).replace(self._target)
        except OSError as error:
            raise self.unwritable(error, "the change itself is complete") from error
        return self._path

    def unwritable(self, error: OSError, state: str) -> AspenError:
        """The error of a file that cannot be written.

        Args:
            error: Why.
            state: What became of the change.
        """
        option = self._kind.split(maxsplit=1)[0]
        return AspenError(
            f"the {self._kind} {self._path} cannot be written: {why_not(self._target, error)}; "
            f"{state}",
            hint=f"Make room or mend permissions, or name another place with --{option}.",
        )
