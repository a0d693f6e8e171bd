"""The program's directories, and atomic writes of files that only their owner can read.

Every file that the program writes goes through here. A file appears under its name only when it is
complete; its mode is 0600, and that of a new directory 0700, whatever the umask; and a symbolic
link that someone else placed under that name is never followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from aspencli.errors import BadInputError, CredentialsError, RefusedError

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_HOME_VARIABLE = "ASPEN_HOME"
_STREAMS = ("/dev/fd/", "/proc/self/fd/")
_NAMED_STREAMS = frozenset({"/dev/stdin", "/dev/stdout", "/dev/stderr"})
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def config_dir() -> Path:
    """Return the directory of ``config.toml``."""
    return _home("config")


def data_dir() -> Path:
    """Return the directory of the local deployment."""
    return _home("data")


def state_dir() -> Path:
    """Return the directory of undo files, journals, console history, and crash reports."""
    return _home("state")


def cache_dir() -> Path:
    """Return the directory of what can be downloaded again."""
    return _home("cache")


def _home(kind: str) -> Path:
    """Return a directory of the platform's own, or below ``ASPEN_HOME`` if that is set."""
    moved = os.environ.get(_HOME_VARIABLE)
    if moved:
        return expand(moved).absolute() / kind
    import platformdirs  # imported only if ASPEN_HOME is not set

    dirs = platformdirs.PlatformDirs("aspencli", appauthor=False)
    return Path(getattr(dirs, f"user_{kind}_path"))


def expand(path: str | Path) -> Path:
    """Return a path with ``~`` replaced by the home directory.

    Raises:
        BadInputError: The path starts with ``~`` and a user who does not exist.
    """
    found = os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises RuntimeError instead
    if str(found).startswith("~"):
        raise BadInputError(
            f"No home directory found for {Path(path).parts[0]!r}",
            hint=f"Use the full path, or ./{path} if the directory really has that name.",
        )
    return Path(found)


def make_folder(folder: Path, mode: int = FOLDER_MODE) -> None:
    """Create a directory and its missing parents, accessible only to their owner.

    Another mode is for directories that another account has to pass through.
    """
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    for one in reversed(missing):
        with suppress(FileExistsError):  # another process was faster
            one.mkdir(mode=mode)
            one.chmod(mode)  # mkdir applies the umask


def create(path: Path, *, flags: int = os.O_RDWR) -> int:
    """Create a file that must not exist yet, and return its descriptor.

    Raises:
        FileExistsError: Something with that name exists, even if only a symbolic link.
    """
    made = os.open(path, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    os.fchmod(made, FILE_MODE)
    return made


def open_own(path: Path, *, flags: int = os.O_RDWR) -> int:
    """Open one of the program's own files, creating it if missing, and return its descriptor.

    Failures raise a plain OSError, because only the caller knows what they mean: after a commit,
    for example, they are worth no more than a warning.

    Raises:
        OSError: It cannot be opened, or is a symbolic link or not a regular file.
    """
    with suppress(FileExistsError):
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
    """Check that a path about to be written is a regular file or does not exist.

    Raises:
        RefusedError: The path is a symbolic link.
        BadInputError: The path is a directory or a device.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:  # it does not exist, or the write itself will report the error
        return
    if stat.S_ISLNK(mode):
        raise RefusedError(
            f"{path} is a symbolic link; nothing was written.",
            hint=f"Give the file that it points to ({_target(path)}), or remove the link.",
        )
    if stat.S_ISDIR(mode):
        raise BadInputError(f"{path} is a directory.", hint="Give a file in it.")
    if not stat.S_ISREG(mode):
        raise BadInputError(f"{path} is not a regular file.", hint="Give a regular file.")


def _target(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # it changed in the meantime
        return "unknown"


def is_stream(path: Path) -> bool:
    """Return True if the path is a pipe, a terminal, or another device rather than a file."""
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
    """Open a temporary file that replaces the path when the block ends without an error.

    Output to a pipe or a device, such as ``/dev/stdout``, is written directly.

    Raises:
        RefusedError: The path is a symbolic link.
    """
    if is_stream(path):
        with open_stream(path) as stream:
            yield stream
        return
    check_own(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
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
    """Write a file atomically: readers find the old or the new content, even after a crash."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_private(path: Path, text: str) -> None:
    """Write a file atomically; other users can never see any of it."""
    make_folder(path.parent)
    write_whole(path, text)


def read_private(path: Path) -> str | None:
    """Return the file's text, or None if the file does not exist.

    Raises:
        CredentialsError: Other users can read or change it, so it cannot be trusted.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & _OTHERS:
                raise CredentialsError(
                    f"{path} is accessible to other users (mode {stat.S_IMODE(mode):04o}), so it "
                    "was not used.",
                    hint=f"If you are sure that no one else used it: chmod 600 '{path}'. Otherwise "
                    "sign out, then sign in again.",
                )
            return file.read()
    except FileNotFoundError:
        return None


def write_failure(path: Path, error: OSError) -> str:
    """Return the reason why a file cannot be written."""
    at = Path(error.filename) if isinstance(error.filename, str) else path
    if at in path.parents and at.exists() and not at.is_dir():
        return f"{at} is not a directory"
    return error.strerror or str(error)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that the name of a new file in it survives a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
