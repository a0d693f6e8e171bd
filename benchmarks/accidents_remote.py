"""``make accidents-remote``: kill commands that use a tunnel, and look for anything left behind.

Each accident starts a console, psql, a tunnel, or a bulk run through a real bastion, kills it with
a random signal at a random moment, and checks after two seconds that there are no ssh processes of
ours, no processes that hold a port open, and no sessions on the server.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from aspencli.machine import command_of
from tests.deployments.rig import Deployment, operator, running

_SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
_GONE_S = 2.0
_LONGEST_S = 3.0
_SLEEP = "SELECT pg_sleep(60)"
_USERS = {
    "console": ("db", "interact", "-c", f"session.execute(sa.text('{_SLEEP}'))"),
    "psql": ("db", "psql", "-c", _SLEEP),
    "tunnel": ("db", "tunnel", "--", "psql", "-c", _SLEEP),
    "open tunnel": ("db", "tunnel"),
    "bulk": ("samples", "update-public-ids", "--via", "db", "--group-id", "1", "--yes", "-f"),
}
_MASTERS = {
    "off": (),
    "auto": ("ControlMaster auto",),
    "persistent": ("ControlMaster auto", "ControlPersist 600"),
}


def main() -> int:
    """Run the accidents; exit with 1 if anything was left behind."""
    chosen = _parser().parse_args()
    # Background jobs start with SIGINT ignored, and those of nohup with SIGHUP; the killed
    # processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    chance = random.Random(chosen.seed)
    left: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # the path of a socket must be short
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        with running(folder) as servers:
            deployment = operator(servers, folder)
            for number in range(chosen.kills):
                user, master = chance.choice(list(_USERS)), chance.choice(list(_MASTERS))
                found = _accident(deployment, user, master, chance)
                left.update(found)
                if found:
                    what = ", ".join(found)
                    sys.stdout.write(f"{number}: {user}, ControlMaster {master}: {what}\n")
    sys.stdout.write(f"{chosen.kills} kills; left behind: {dict(left) or 'nothing'}\n")
    return 1 if left else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make accidents-remote", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _accident(deployment: Deployment, user: str, master: str, chance: random.Random) -> list[str]:
    folder = deployment.folder
    options = _MASTERS[master]
    deployment.with_ssh(*options, *([f"ControlPath {folder}/%C"] if options else []))
    words = list(_USERS[user])
    if user == "bulk":
        words.append(str(_mapping(deployment, chance)))
    process = subprocess.Popen(
        [sys.executable, "-m", "aspencli", "--env", "staging", *words],
        env=dict(deployment.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(chance.uniform(0, _LONGEST_S))
    number = chance.choice(_SIGNALS)
    # As from a terminal, where a signal reaches the whole group; SIGKILL reaches one process.
    if number is signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        # psql before 17 ignores Ctrl-C while it connects; a person would press it again.
        if number is signal.SIGINT and "psql" in words:
            os.killpg(process.pid, number)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return ["the command itself"]
    time.sleep(_GONE_S)
    return _left(deployment)


def _left(deployment: Deployment) -> list[str]:
    found = []
    if deployment.bastion.forwarding():
        found.append("ssh")
    found += [
        f"a process: {command_of(int(path.name))}"
        for path in Path("/proc").glob("[0-9]*")
        if _is_of(deployment, path)
    ]
    if deployment.sessions():
        found.append("a session")
    return found


def _is_of(deployment: Deployment, process: Path) -> bool:
    """Return True for a process of the operator, except a control master that persists."""
    with contextlib.suppress(OSError):
        mine = deployment.environment["ASPEN_CONFIG"].encode() in (process / "environ").read_bytes()
        return mine and b"[mux]" not in (process / "cmdline").read_bytes()
    return False


def _mapping(deployment: Deployment, chance: random.Random) -> Path:
    names = deployment.sql(
        "SELECT private_identifier FROM aspen.samples WHERE submitting_group_id = 1"
    )
    path = deployment.folder / "mapping.csv"
    mark = chance.randrange(10**9)
    rows = (f"{name},hCoV-19/USA/A-{mark}-{n}/2026" for n, (name,) in enumerate(names))
    path.write_text("\n".join(("private_identifier,public_identifier", *rows, "")))
    return path


if __name__ == "__main__":
    sys.exit(main())
