"""Auspice, the viewer of phylogenetic trees: a copy of its web pages on this machine.

It is a program of the Nextstrain project under the AGPL, and no part of this one. One version is
known here by the hash of its npm package, which is fetched once, kept as it is, and verified each
time it is used. It is read into memory, so what is served is what was verified.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aspencli import files
from aspencli.errors import BadInputError, UnreachableError
from aspencli.text import visible

VERSION = "3.0.0"
PACKAGE = f"auspice@{VERSION}"
PACKAGE_FILE = f"auspice-{VERSION}.tgz"
SIZE = 9_534_330
"""The size of the package, in bytes."""
# `npm view auspice@3.0.0 dist.integrity`
_SHA512 = "39UrNQwN56AvTH4NUHNMBI0bDWpVbKdWgneGNN6xLXriZ1hujVqqiPECHBf/4/1898DqWvdgAaj4H5+eKVeNFw=="
_INDEX, _ICON = "dist/index.html", "favicon.png"
_PACKED = (".br", ".gz")  # copies of other files for web servers
_MOST_BYTES = 100_000_000  # of all files together; version 3.0.0 has 4 million
_PATIENCE_S = 300
_REASON = "npm error"


@dataclass(frozen=True)
class Auspice:
    """The web pages of Auspice.

    Attributes:
        files: The content of each file, by its path from the root of the web server.
        origin: Where they come from, for people.
    """

    files: Mapping[str, bytes]
    origin: str

    @property
    def index(self) -> bytes:
        """Return the page that loads the others."""
        return self.files[_INDEX]


def cached() -> Auspice | None:
    """Return the copy in the cache; None if there is none, or if it was changed."""
    path = files.cache_dir() / PACKAGE_FILE
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return _unpacked(content, path) if _is_genuine(content) else None


def given(path: Path) -> Auspice:
    """Return a copy that the operator has: a folder of any version, or the npm package.

    Args:
        path: The package file, the folder ``dist`` of Auspice, or the folder that contains it.

    Raises:
        BadInputError: It is none of them, or it cannot be read.
    """
    try:
        if path.is_file():
            return _package(path)
        root = path if (path / _INDEX).is_file() else path.parent
        if (path / "dist").is_dir() or path.name == "dist":
            return _folder(root)
    except OSError as error:
        raise BadInputError(
            f"Cannot read {path}: {error.strerror or error}", hint="Check its permissions."
        ) from error
    raise BadInputError(
        f"No copy of Auspice found in {path}: it has no {_INDEX}.",
        hint=f"Pass the folder of its npm package (node_modules/auspice), or {PACKAGE_FILE}.",
    )


def _package(path: Path) -> Auspice:
    content = path.read_bytes()
    if not _is_genuine(content):
        raise BadInputError(
            f"{path} is not the npm package {PACKAGE}: its checksum differs.",
            hint=f"Get it with: npm pack {PACKAGE}",
        )
    return _unpacked(content, path)


def _folder(root: Path) -> Auspice:
    found, size = {}, 0
    for path in sorted((*(root / "dist").rglob("*"), root / _ICON)):
        if not path.is_file() or path.suffix in _PACKED:
            continue
        size += path.stat().st_size
        if size > _MOST_BYTES:
            raise BadInputError(
                f"The files in {root / 'dist'} have more than {_MOST_BYTES:,} bytes.",
                hint="Pass the folder of Auspice.",
            )
        found[path.relative_to(root).as_posix()] = path.read_bytes()
    if _INDEX not in found:
        raise BadInputError(
            f"No copy of Auspice found in {root}: it has no {_INDEX}.",
            hint="Build it (npx auspice build), or pass another folder.",
        )
    return Auspice(found, str(root))


def npm() -> str | None:
    """Return the program that fetches packages, or None if it is not installed."""
    return shutil.which("npm")


def fetch(program: str) -> Auspice:
    """Fetch the package with npm, verify it, and keep it in the cache.

    Args:
        program: The path of npm.

    Raises:
        UnreachableError: npm cannot fetch it, or what it fetched is not the known package.
        OSError: The cache cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="aspencli-auspice-") as folder:
        _pack(program, Path(folder))
        fetched = sorted(Path(folder).glob("*.tgz"))
        content = fetched[0].read_bytes() if fetched else b""
    if not _is_genuine(content):
        raise UnreachableError(
            f"The package that npm fetched is not {PACKAGE} as it is known here: its checksum "
            "differs. It was discarded.",
            hint="Check npm's registry: npm config get registry",
        )
    path = files.cache_dir() / PACKAGE_FILE
    files.make_folder(path.parent)
    files.write_whole(path, content)
    return _unpacked(content, path)


def _pack(program: str, folder: Path) -> None:
    """Run ``npm pack`` in a folder, and leave no process of it.

    Raises:
        UnreachableError: It fails, or takes too long.
    """
    words = [program, "pack", PACKAGE, "--ignore-scripts", "--no-update-notifier", "--no-audit"]
    with subprocess.Popen(  # noqa: S603 - constants, and the operator's own npm
        words,
        cwd=folder,  # no project's .npmrc is read
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        said = _errors_of(process)
    if process.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        wanted = [line.removeprefix(_REASON).strip() for line in lines if line.startswith(_REASON)]
        reason = " ".join((wanted or lines or [f"exit code {process.returncode}"])[:2])
        raise UnreachableError(f"npm could not fetch {PACKAGE}: {visible(reason)[:300]}")


def _errors_of(process: subprocess.Popen[str]) -> str:
    """Wait until npm has ended, and return what it wrote to stderr; kill it if that fails."""
    try:
        _out, said = process.communicate(timeout=_PATIENCE_S)
    except BaseException as error:  # including Ctrl-C
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        message = f"npm did not fetch {PACKAGE} within {_PATIENCE_S} s."
        raise UnreachableError(message) from error
    return said


def _is_genuine(content: bytes) -> bool:
    return base64.b64encode(hashlib.sha512(content).digest()).decode() == _SHA512


def _unpacked(content: bytes, path: Path) -> Auspice:
    """Return the web pages in the package, which was verified."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        for member in package:
            name = member.name.removeprefix("package/")
            wanted = name.startswith("dist/") and not name.endswith(_PACKED)
            if (wanted or name == _ICON) and (file := package.extractfile(member)):
                found[name] = file.read()
    return Auspice(found, str(path))
