"""The screens that are shown in the documentation: their commands, on a new local deployment."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.deployment import Deployment
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.processes import file_lock
from aspen.local.services import installed_parts
from tests.guides.session import steady
from tests.screens.drawing import draw, text_of
from tests.screens.terminal import typed

FOLDER = Path(__file__).parents[2] / "docs" / "screens"
_FILES = {
    "ids.csv": "private_identifier,public_identifier\n"
    "RCPHL-0000001,hCoV-19/USA/CA-RCPHL-2/2020\n"
    "RCPHL-0000002,hCoV-19/USA/CA-RCPHL-1/2020\n"
    "RCPHL-0000003,hCoV-19/USA/CA-NEW-3/2020\n",
    "slow.py": "for sample in session.scalars(select(Sample).limit(200)):\n"
    "    list(sample.lineages)\n",
}
_RENAME = "aspencli samples update-public-ids --group-id 1 -f ids.csv"
_ONBOARD = "aspencli users onboard grace@lab.example.org --name 'Grace Hopper' --group RCPHL"
_HOME = "/home/ada"
_STATE = f"{_HOME}/.local/state/aspencli"
_PORTS = {"api": 3000, "identity": 3031}
# What differs in every run, and what is shown instead, the newest last.
_EXAMPLES = (
    (r"\b20\d{6}-\d{6}-[0-9a-f]{4}\b", ("20261124-044044-f9c1", "20261124-044102-3b7e")),
    (r"\b20\d{6}T\d{12}Z", ("20261124T044044978752Z", "20261124T044102310468Z")),
    (r"\b\d\d:\d\d:\d\d\.\d{3}(?= UTC)", ("04:41:30.412", "04:41:31.733")),
    (r"\bqc-20\d{6}-\d{6}-\d{6}\b", ("qc-20261124-044130-853334",)),
    (r"\b202[5-9]-\d\d-\d\d(?=[T ]\d\d:)", ("2026-11-24",)),
)
# What differs, too, and stays in a picture until something else has changed.
_VARYING = re.compile(r"\d+ other sessions \(\d+ idle\)|\(\d[\d.]* s, \d+ MB\)")
_SLOW = (
    "ALTER SYSTEM SET pg_stat_statements.track = 'top'",
    "SELECT pg_reload_conf()",
    "SELECT pg_stat_statements_reset()",
    "SELECT count(*), pg_sleep(1.1) FROM aspen.samples",
    "ALTER SYSTEM SET pg_stat_statements.track = 'none'",
    "SELECT pg_reload_conf()",
)
_FOUND = re.compile(r"^(Run|Id) +(\S+)$")
_COLOR = re.compile(r"\x1b\[[\d;]*m")


@dataclass(frozen=True)
class Scene:
    """A picture, and the commands whose screens it shows.

    Attributes:
        title: The text of the picture for those who do not see it.
        commands: The commands; ``{run}`` is the run that the one before it reported.
        answer: What the operator types where a command asks.
        before: Commands that are not shown.
        after: Commands that are not shown, and undo what the scene has changed.
        slow: True if one statement, and no other, is to be slow.
        parts: The parts of the deployment that it needs.
    """

    title: str
    commands: tuple[str, ...]
    answer: str | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    slow: bool = False
    parts: frozenset[str] = frozenset()


SCENES = {
    "help": Scene("The help of aspencli samples", ("aspencli samples --help",)),
    "dry-run": Scene(
        "A dry run shows what would happen to each sample of a mapping file",
        ("cat ids.csv", f"{_RENAME} --dry-run"),
    ),
    "rename": Scene(
        "A bulk update shows its plan, asks, and names the undo file",
        (_RENAME,),
        answer="y",
        after=("aspencli samples undo {run} --yes",),
    ),
    "undo": Scene(
        "An undo shows its plan, asks, and restores the old identifiers",
        ("aspencli samples undo {run}",),
        answer="y",
        before=(_RENAME.replace("--group-id", "--yes --group-id"),),
    ),
    "profile": Scene(
        "The profiler finds an N+1, with its line and its fix",
        ("cat slow.py", "aspencli db profile slow.py"),
    ),
    "doctor": Scene(
        "The doctor lists findings of the database with the next step, and the checks that passed",
        ("aspencli db doctor",),
        slow=True,
        parts=frozenset({"worker"}),  # it has tables, too
    ),
    "target-check": Scene(
        "A check of each step on the way to a target, with what to do next",
        ("aspencli target check",),
    ),
    "jobs-why": Scene(
        "The cause of a failed job, the next step, and the end of its log",
        ("aspencli jobs why {run}",),
        before=(
            "aspencli jobs start qc --pathogen SC2 --sample RCPHL-0000001 --yes",
            "aspencli jobs logs {run} --follow",
        ),
        parts=frozenset({"worker"}),
    ),
    "onboard": Scene(
        "The plan to onboard a person, on both sides",
        (f"{_ONBOARD} --dry-run",),
    ),
}


@dataclass
class Stage:
    """A new deployment whose screens are shown.

    Attributes:
        home: The folder ``ASPEN_HOME``.
        environment: The environment of commands.
        ports: The ports of the deployment's parts, and those to show for them.
    """

    home: Path
    environment: dict[str, str]
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Return the working folder of the commands."""
        folder = self.home / "work"
        folder.mkdir(exist_ok=True)
        return folder

    def plain(self, command: str) -> str:
        """Return what a command shows, without colors and without what always differs."""
        shown = typed(command, self.folder, self.environment)
        return self._examples(_COLOR.sub("", "\n".join(shown)))

    def lines(self, scene: Scene) -> list[str]:
        """Return the lines of a scene's screen, with colors, and without what always differs."""
        for name, text in _FILES.items():
            (self.folder / name).write_text(text)
        if scene.slow:
            self._slow_statement()
        shown: list[str] = []
        run = ""
        for command in (*scene.before, *scene.commands, *scene.after):
            words = command.format(run=run)
            output = typed(words, self.folder, self.environment, self._answer(scene, command))
            names = (_FOUND.match(_COLOR.sub("", line)) for line in output)
            run = next((found[2] for found in names if found), run)
            if command in scene.commands:
                shown += [*([""] if shown else []), f"\x1b[1m$ {words}\x1b[0m", *output]
        return self._examples("\n".join(shown)).split("\n")

    @staticmethod
    def _answer(scene: Scene, command: str) -> str | None:
        asks = command in scene.commands and command.startswith("aspencli")
        return scene.answer if asks else None

    def _slow_statement(self) -> None:
        """Leave one slow statement in the statistics; on a busy machine, any could be slow."""
        url = Cluster(self.home / "data").url(user=SUPERUSER)
        database = Database(url, application_name="tests", writable=True)
        with database.engine.connect() as connection:
            own = connection.execution_options(isolation_level="AUTOCOMMIT")
            for statement in _SLOW:
                own.execute(sa.text(statement))
        database.dispose()

    def _examples(self, text: str) -> str:
        text = text.replace(str(self.home / "state"), _STATE).replace(str(self.folder), _HOME)
        for port, usual in self.ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{usual}")
        for pattern, examples in _EXAMPLES:
            found: list[str] = list(dict.fromkeys(re.findall(pattern, text)))
            # The newest is the run that is shown.
            for value, example in zip(found[::-1], examples[::-1], strict=False):
                text = text.replace(value, example)
        return text


@contextlib.contextmanager
def stage(lock: Path | None = None) -> Iterator[Stage]:
    """Yield a new deployment with its test data, and remove it at the end.

    Args:
        lock: A file that is locked meanwhile by whoever starts a deployment: two that choose
            ports at the same moment may choose the same ones.
    """
    home = Path(tempfile.mkdtemp(prefix="aspen-screens-"))
    home.chmod(0o711)  # the server's account needs to pass through
    deployment = Deployment(home / "data")
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    try:
        # The worker is to find no more programs than the commands do.
        with file_lock(lock or home / "lock"), pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", programs)
            deployment.up()
        ports = {part.name: part.port for part in deployment.status()}
        yield Stage(
            home,
            {
                "PATH": programs,
                "LANG": "C.UTF-8",
                "TZ": "UTC",
                "ASPEN_HOME": str(home),
            },
            {ports[name] or 0: example for name, example in _PORTS.items()},
        )
    finally:
        deployment.reset()
        shutil.rmtree(home, ignore_errors=True)


def playable() -> dict[str, Scene]:
    """Return the scenes whose parts are installed here, by the names of their pictures."""
    parts = set(installed_parts())
    return {name: scene for name, scene in SCENES.items() if scene.parts <= parts}


def lasting(lines: list[str]) -> list[str]:
    """Return lines of a picture without times, sizes, and the widths that depend on them."""
    return steady("\n".join(f"    {_VARYING.sub('…', line)}" for line in lines))


def picture(stage: Stage, scene: Scene) -> str:
    """Return the current picture of a scene."""
    return draw(scene.title, stage.lines(scene))


def is_current(old: str, new: str) -> bool:
    """Return True if two pictures show the same, but for times and sizes."""
    return lasting(text_of(old)) == lasting(text_of(new))
