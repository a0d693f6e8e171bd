"""``make broken-settings``: run every command with every broken setting, and count the faults.

Each run is forked from a process that has already loaded the program, since thousands of startups
would take longer than the runs. Settings that only a new interpreter reads are not covered.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.broken_settings.commands import FEW, command_lines
from benchmarks.broken_settings.settings import SECRET, Broken, all_settings

_CODES = frozenset({0, 1, 2, 3, 4, 5, 6, 7})
_SECONDS = 40.0
_BUGS = ("Bug in aspencli", "Traceback (most recent call last)")
# Loaded once, before forking; importing them opens nothing.
_HEAVY = (
    "sqlalchemy.orm",
    "psycopg2",
    "httpx",
    "alembic.command",
    "aspen.database.models",
    "IPython",
)


@dataclass(frozen=True)
class Run:
    """The result of one command with one broken setting."""

    setting: str
    command: str
    code: int | None
    text: str
    seconds: float

    @property
    def fault(self) -> str | None:
        """Return what is wrong with the run, or None."""
        if self.code is None:
            return f"no end after {_SECONDS:.0f} s"
        if any(words in self.text for words in _BUGS):
            return "bug"
        if SECRET in self.text:
            return "secret shown"
        if self.code not in _CODES:
            return f"exit code {self.code}"
        has_message = "Error: " in self.text or "parts failed" in self.text  # of target check
        if self.code and not has_message and not self.command.startswith("db psql"):
            return "no message"
        return None


def main() -> int:
    """Run the commands; return 1 if one ends as a bug or shows a secret."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.broken_settings", description=__doc__
    )
    parser.add_argument("--setting", help="only settings whose name contains this")
    parser.add_argument("--command", help="only commands whose name contains this")
    parser.add_argument("--few", action="store_true", help="only one command of each kind")
    parser.add_argument("--show", action="store_true", help="show the output of each run")
    chosen = parser.parse_args()
    for name in _HEAVY:
        import_module(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aspen-settings-") as text:
        folder = Path(text)
        lines = {
            name: words
            for name, words in command_lines(folder).items()
            if (chosen.command or "") in name and (name in FEW or not chosen.few)
        }
        settings = [s for s in all_settings(folder) if (chosen.setting or "") in s.name]
        pairs = [(setting, name, lines[name]) for setting in settings for name in lines]
        with ThreadPoolExecutor(2) as pool:
            runs = []
            for run in pool.map(lambda pair: _run(folder, *pair), pairs):
                runs.append(run)
                if run.fault or chosen.show:
                    _show(run)
    faults = [run for run in runs if run.fault]
    sys.stdout.write(_table(settings, runs))
    sys.stdout.write(
        f"\n{len(settings)} settings x {len(lines)} commands = {len(runs)} runs, "
        f"{len(faults)} faults, {time.monotonic() - began:.0f} s\n"
    )
    return 1 if faults else 0


def _show(run: Run) -> None:
    sys.stdout.write(
        f"--- {run.setting} | {run.command} | {run.code} | {run.seconds:.1f} s"
        f" | {run.fault or 'ok'}\n{run.text[:2000]}\n"
    )
    sys.stdout.flush()


def _table(settings: list[Broken], runs: list[Run]) -> str:
    rows = ["\n| setting | runs | exit codes | faults |\n|---|--:|---|--:|\n"]
    for setting in settings:
        mine = [run for run in runs if run.setting == setting.name]
        codes = Counter(str(run.code) for run in mine)
        shown = ", ".join(f"{code}: {times}" for code, times in sorted(codes.items()))
        faults = sum(run.fault is not None for run in mine)
        rows.append(
            f"| `{setting.name.replace('|', chr(92) + '|')}` | {len(mine)} | {shown} | {faults} |\n"
        )
    return "".join(rows)


def _run(folder: Path, setting: Broken, name: str, words: list[str]) -> Run:
    out = folder / f"said-{os.getpid()}-{abs(hash((setting.name, name)))}"
    since = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(setting.variables, words, folder, out)
    code = _wait(pid, since + _SECONDS)
    text = out.read_text(errors="replace") if out.exists() else ""
    out.unlink(missing_ok=True)
    return Run(setting.name, name, code, text, time.monotonic() - since)


def _wait(pid: int, until: float) -> int | None:
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _child(variables: Mapping[str, str], words: list[str], folder: Path, out: Path) -> None:
    os.setsid()
    os.environ.update(variables)
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    said = os.open(out, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    code = 99
    try:
        from aspencli.cli.main import run

        code = run(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 98
    except BaseException:  # noqa: BLE001 - a campaign reports everything
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
