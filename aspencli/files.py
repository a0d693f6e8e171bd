"""How this program writes files: whole or not at all, readable by their owner alone.

Every file that we write passes through here. A file appears under its name only when it is
complete, its mode is 0600 and that of a new folder 0700 whatever the umask is, and a symbolic link
that someone else placed under that name is never followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aspencli.errors import BadInputError, RefusedError

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_STREAMS = ("/dev/fd/", "/proc/self/fd/")
_NAMED_STREAMS = frozenset({"/dev/stdin", "/dev/stdout", "/dev/stderr"})


def make_folder(folder: Path, mode: int = FOLDER_MODE) -> None:
    """Make a folder for its owner alone, and the folders above it, where they are missing.

    Args:
        folder: The folder.
        mode: Another mode, where another account has to pass through.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            one.mkdir(mode=mode)
            one.chmod(mode)  # whatever the umask is


def create(path: Path, *, flags: int = os.O_RDWR) -> int:
    """Create a file that must not exist yet, and return its descriptor.

    Raises:
        FileExistsError: Something has that name, a symbolic link included.
    """
    made = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    os.fchmod(made, FILE_MODE)
    return made


def open_own(path: Path, *, flags: int = os.O_RDWR) -> int:
    """Open a file that the program keeps, made where it is missing, and return its descriptor.

    It fails as the system does: no operator named the file, and what it means that it cannot be
    written is for the caller to say. After a commit, that is a warning.

    Raises:
        OSError: It cannot be opened, or a symbolic link or something else has that name.
    """
    with contextlib.suppress(FileExistsError):
        return create(path, flags=flags)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a symbolic link", str(path))
    opened = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    os.set_blocking(opened, True)
    if os.fstat(opened).st_uid == os.geteuid():
        os.fchmod(opened, FILE_MODE)
    return opened


def check_own(path: Path) -> None:
    """Check that a name that is about to be written leads to a plain file, or to nothing.

    Raises:
        RefusedError: A symbolic link has that name.
        BadInputError: It is a folder or a device.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # nothing is there, or whoever writes says why it cannot be
        return
    if stat.S_ISLNK(mode):
        raise RefusedError(
            f"{path} is a symbolic link, so nothing was written",
            hint=f"Name the file that it points to ({_target(path)}), or remove the link.",
        )
    if stat.S_ISDIR(mode):
        raise BadInputError(f"{path} is a folder", hint="Name a file in it.")
    if not stat.S_ISREG(mode):
        raise BadInputError(f"{path} is not a regular file", hint="Name a file.")


def is_stream(path: Path) -> bool:
    """Return True if the name is that of a pipe, a terminal or another device, not of a file."""
    text = str(path)
    if text in _NAMED_STREAMS or text.startswith(_STREAMS):
        return True
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def open_stream(path: Path) -> IO[bytes]:
    """Open a pipe or a device for writing."""
    return path.open("wb")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that takes its place when the block ends, unless the block fails.

    What is written to a pipe or a device, such as ``/dev/stdout``, goes there as it comes.

    Raises:
        RefusedError: A symbolic link has that name.
    """
    if is_stream(path):
        with open_stream(path) as stream:
            yield stream
        return
    check_own(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with os.fdopen(create(temporary), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new, never a part."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # it has changed since
        return "unknown"
