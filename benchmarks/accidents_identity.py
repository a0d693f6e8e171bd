"""``make accidents-identity``: onboard people while things go wrong; exit with 1 on a bad end.

- *bulk*: 500 people from a file, at a provider that allows 15 requests per second, take at most 1.1
  times the time that the limit itself requires for the requests that were made.
- *kills*: the command is killed at a random step boundary, and run again. Both sides must then be
  equal, with one account and one e-mail per person and group.
- *failures*: each step fails in each way. Nothing is left over that the command does not name, and
  running it again completes the work.
- *pairs*: two operators onboard the same person at the same moment. One succeeds, and the other
  reports that.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.auth0.store import Member, ProviderStore, Seed, User, seed
from aspen.local.postgres.server import Cluster
from aspencli.changes import step_log
from benchmarks.accidents.wire import AtCommit, Wire
from tests import zygote
from tests.api.conftest import use_organizations
from tests.cli.commands.ending import Ended
from tests.conftest import Server, migrate
from tests.conftest import seed as seed_database
from tests.local.auth0.detour import Detour, Forward
from tests.local.auth0.lab import (
    CLIENT,
    MANAGEMENT,
    MANAGEMENT_SECRET,
    ORGANIZATIONS,
    Identity,
    running_identity,
)
from tests.remote.naughty import Reply, Seen, hang_up

BURST, RATE = 50, 15.0
"""The local provider's usual limit, which is Auth0's for small tenants."""
SLOWER = 1.1
_GROUPS = dict(zip(("1", "2", "3"), ORGANIZATIONS, strict=True))
_ROLES = ("admin", "member", "viewer")
_PATIENCE_S = 600
_PARTS = ("kills", "failures", "pairs", "bulk")
STEPS = {
    "account": "^users$",
    "member": "/members$",
    "role": "/members/[^/]+/roles$",
    "invitation": "/invitations$",
}
"""The POST requests that onboarding consists of."""
_HOLDS: tuple[AtCommit, ...] = ("hold the question", "hold the answer")
_STATE = """
SELECT u.email, u.auth0_user_id, u.name, g.auth0_org_id, r.name FROM aspen.users u
  LEFT JOIN aspen.user_roles ur ON ur.user_id = u.id
  LEFT JOIN aspen.groups g ON g.id = ur.group_id LEFT JOIN aspen.roles r ON r.id = ur.role_id
 WHERE u.email = ANY(:emails)
"""


_PROVIDED = """
SELECT u.email, u.user_id, u.name, m.organization_id, r.name FROM users u
  LEFT JOIN members m ON m.user_id = u.user_id
  LEFT JOIN member_roles mr ON mr.user_id = m.user_id AND mr.organization_id = m.organization_id
  LEFT JOIN roles r ON r.id = mr.role_id
"""


@dataclass(frozen=True)
class Newcomer:
    """A line of a file, and what exists of it before."""

    email: str
    name: str
    group: str
    role: str
    has_account: bool = False
    is_member: bool = False

    @property
    def organization(self) -> str:
        return _GROUPS[self.group]

    @property
    def account(self) -> str:
        return f"auth0|{self.email.partition('@')[0]}"


@dataclass
class Site:
    """Both sides, and a command that works on them.

    Attributes:
        folder: A folder for files and homes.
    """

    database: Database
    identity: Identity
    detour: Detour
    folder: Path

    def newcomers(self, number: int, dice: random.Random) -> list[Newcomer]:
        """Return people of whom none, a part, or everything at the provider exists."""
        found = []
        for _ in range(number):
            has_account = dice.random() < 0.3
            found.append(
                Newcomer(
                    f"p{uuid4().hex[:12]}@example.org",
                    f"Person {dice.randrange(1000)}",
                    dice.choice(list(_GROUPS)),
                    dice.choice(_ROLES),
                    has_account,
                    has_account and dice.random() < 0.5,
                )
            )
        existing = [one for one in found if one.has_account]
        seed(
            self.identity.folder,
            Seed(
                users=[User(one.account, one.email, one.name) for one in existing],
                members=[
                    Member(one.organization, one.account, [one.role])
                    for one in existing
                    if one.is_member
                ],
            ),
        )
        return found

    def write(self, newcomers: Sequence[Newcomer]) -> str:
        """Write a file of people, and return its path."""
        path = self.folder / f"{uuid4().hex}.csv"
        rows = (f"{one.email},{one.name},{one.group},{one.role}" for one in newcomers)
        path.write_text("\n".join(("email,name,group,role", *rows, "")))
        return str(path)

    def start(self, file: str, home: Path, database: str = "") -> subprocess.Popen[str]:
        """Start the command."""
        address = self.database.url.render_as_string(hide_password=False)
        return zygote.start(
            ["users", "onboard", "--file", file, "--yes", "-o", "json"],
            env={
                **os.environ,
                "ASPEN_HOME": str(home),
                "ASPEN_DATABASE_URL_LOCAL": database or address,
                "AUTH0_MANAGEMENT_DOMAIN": self.detour.url,
                "AUTH0_MANAGEMENT_CLIENT_ID": MANAGEMENT,
                "AUTH0_MANAGEMENT_CLIENT_SECRET": MANAGEMENT_SECRET,
                "ASPEN_AUTH_CLIENT_ID_LOCAL": CLIENT,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, file: str, home: Path, database: str = "") -> Ended:
        """Run the command to its end."""
        return ended(self.start(file, home, database))

    def home(self) -> Path:
        """Return a new home directory."""
        home = self.folder / uuid4().hex
        home.mkdir()
        return home

    def stored(self, newcomers: Sequence[Newcomer]) -> dict[str, tuple[str, str, dict[str, str]]]:
        """Return account, name, and roles by organization of each user in the database."""
        found: dict[str, tuple[str, str, dict[str, str]]] = {}
        with self.database.reading() as session:
            emails = [one.email for one in newcomers]
            for email, account, name, place, role in session.execute(
                sa.text(_STATE), {"emails": emails}
            ):
                roles = found.setdefault(email, (account, name, {}))[2]
                if place:
                    assert place not in roles, f"{email} has two roles"
                    roles[place] = role
        return found

    def provided(self, newcomers: Sequence[Newcomer]) -> dict[str, tuple[str, str, dict[str, str]]]:
        """Return the same of each account at the provider, read from its file."""
        wanted = {one.email for one in newcomers}
        found: dict[str, tuple[str, str, dict[str, str]]] = {}
        with ProviderStore(self.identity.folder).reading() as db:
            for email, account, name, place, role in db.execute(_PROVIDED):
                if email not in wanted:
                    continue
                roles = found.setdefault(email, (account, name, {}))[2]
                assert found[email][0] == account, f"{email} has two accounts"
                if place:
                    assert place not in roles, f"{email} has two roles"
                    roles[place] = role or ""
        return found

    def check_complete(self, newcomers: Sequence[Newcomer], *, mails: int | None = 1) -> None:
        """Check that both sides are equal and as wanted, and the number of e-mails to each."""
        stored, provided = self.stored(newcomers), self.provided(newcomers)
        assert stored == provided, f"database: {stored}, provider: {provided}"
        mailed = Counter(self.detour.mailed)
        for one in newcomers:
            assert stored[one.email][2] == {one.organization: one.role}
            if mails is not None:
                sent = mailed[one.email, one.organization]
                assert sent == mails, f"{one.email} got {sent} e-mails"


def ended(process: subprocess.Popen[str]) -> Ended:
    """Wait for a command, and return its result."""
    out, err = process.communicate(timeout=_PATIENCE_S)
    return Ended(process.returncode, out, err)


@contextmanager
def opened(folder: Path, server: Server, *arguments: str) -> Iterator[Site]:
    """Run a site with three groups, and a provider started with more arguments."""
    base = server.template("bare", migrate)
    template = server.template("people", seed_database, base=base)
    with ExitStack() as exits:
        database = exits.enter_context(server.cloned(template, writable=True))
        use_organizations(database)
        state = folder / uuid4().hex / "identity"
        state.parent.mkdir()
        limits = arguments or ("--burst", "100000")
        identity = exits.enter_context(running_identity(state, "--trial", *limits))
        detour = exits.enter_context(Detour(identity.issuer))
        yield Site(database, identity, detour, folder)


# Bulk


@dataclass(frozen=True)
class Timing:
    """The time of a bulk run, and the time that the limit requires for its requests."""

    people: int
    requests: int
    refused: int
    seconds: float

    @property
    def required(self) -> float:
        return (self.requests - BURST) / RATE

    def __str__(self) -> str:
        return (
            f"{self.people} people: {self.requests:,} requests ({self.refused} refused) in "
            f"{self.seconds:.1f} s, {self.seconds / self.required:.3f} times the "
            f"{self.required:.1f} s that the limit requires"
        )


def bulk(site: Site, number: int) -> Timing:
    """Onboard new people from a file at the provider's limit, and check the result."""
    newcomers = [
        Newcomer(f"b{uuid4().hex[:12]}@example.org", f"Person {n}", "1", "member")
        for n in range(number)
    ]
    file, home = site.write(newcomers), site.home()
    began = time.monotonic()
    done = site.run(file, home)
    seconds = time.monotonic() - began
    assert done.code == 0, done.err
    assert [row["outcome"] for row in json.loads(done.out)] == ["created"] * number
    site.check_complete(newcomers)
    refused = sum(
        json.loads(line).get("refused", 0)
        for log in (home / "state" / "steps").glob("*.jsonl")
        for line in log.read_text().splitlines()
    )
    return Timing(number, len(site.detour.calls), refused, seconds)


# Kills


@dataclass
class _AtRequest:
    """A rule that kills a process at its n-th POST, before or after it takes effect."""

    left: int
    after: bool
    process: subprocess.Popen[str] | None = None
    begun: threading.Event = field(default_factory=threading.Event)
    killed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, seen: Seen, forward: Forward) -> Reply | None:
        """Handle a request."""
        if seen.method != "POST" or not seen.target.startswith("/api/"):
            return None
        with self.lock:
            self.left -= 1
            if self.killed:
                return hang_up
            if self.left >= 0:
                return None
            self.killed = True
        assert self.begun.wait(_PATIENCE_S)
        assert self.process is not None
        if self.after:
            forward()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(_PATIENCE_S)
        return hang_up


def kill_once(site: Site, dice: random.Random) -> str | None:
    """Kill a run at a random step boundary, run it again, and check the result.

    Return where it was killed, or None if it ended before it came there.
    """
    newcomers = site.newcomers(dice.randint(1, 4), dice)
    file, home = site.write(newcomers), site.home()
    at_commit = dice.random() < 0.25
    number = dice.randrange(4 * len(newcomers))
    rule = _AtRequest(number, after=dice.random() < 0.5)
    how = dice.choice(_HOLDS)
    address = site.database.url.render_as_string(hide_password=False)
    with Wire(address, at_commit=how) if at_commit else nullcontext() as wire:
        if wire is None:
            site.detour.rules.append(rule)
            process = rule.process = site.start(file, home)
            rule.begun.set()
            ended(process)
        else:
            process = site.start(file, home, wire.address)
            while not wire.held.wait(0.05) and process.poll() is None:
                pass
            process.kill()
            ended(process)
    site.detour.rules.clear()
    if process.returncode != -signal.SIGKILL:
        assert process.returncode == 0
        site.check_complete(newcomers)
        return None
    for _ in range(3):
        done = site.run(file, home)
        # The server may need a moment to notice that the killed process is gone.
        if "Another run is onboarding" not in done.err:
            break
        time.sleep(1)
    assert done.code == 0, done.err
    site.check_complete(newcomers)
    if at_commit:
        return f"commit, {how}"
    return f"request {number + 1:>2}, {'after' if rule.after else 'before'}"


# Failures


@contextmanager
def _provider_fails(
    site: Site, step: str, *, status: int | None, delivered: bool, times: int
) -> Iterator[str]:
    site.detour.fail("POST", STEPS[step], status=status, delivered=delivered, times=times)
    yield ""
    site.detour.rules.clear()


@contextmanager
def _database_fails(site: Site, step: str) -> Iterator[str]:
    """Cut the database off when the request of a step arrives, until the block ends."""
    with Wire(site.database.url.render_as_string(hide_password=False)) as wire:

        def cut(seen: Seen, forward: Forward) -> Reply | None:
            path = seen.target.partition("?")[0].removeprefix("/api/v2/")
            if seen.method != "POST" or not re.search(STEPS[step], path):
                return None
            answer = forward()
            wire.stop()
            return answer

        site.detour.rules.append(cut)
        yield wire.address
        site.detour.rules.clear()


@contextmanager
def _commit_fails(site: Site, how: AtCommit) -> Iterator[str]:
    with Wire(site.database.url.render_as_string(hide_password=False), at_commit=how) as wire:
        yield wire.address


def _failures() -> dict[str, Callable[[Site], object]]:
    found: dict[str, Callable[[Site], object]] = {}

    def add(name: str, step: str, **how: object) -> None:
        found[f"{step}: {name}"] = lambda site: _provider_fails(site, step, **how)  # type: ignore[arg-type] # given below

    for step in STEPS:
        add("500", step, status=500, delivered=False, times=1_000_000)
        add("500 after it was done", step, status=500, delivered=True, times=1)
        add("429", step, status=429, delivered=False, times=2)
        add("409", step, status=409, delivered=False, times=1_000_000)
        add("timeout without effect", step, status=None, delivered=False, times=1_000_000)
        add("timeout with effect", step, status=None, delivered=True, times=1)
        found[f"{step}: database down"] = lambda site, step=step: _database_fails(site, step)  # type: ignore[misc] # a default
    for how in ("lose the question", "lose the answer"):
        found[f"commit: {how}"] = lambda site, how=how: _commit_fails(site, how)  # type: ignore[misc] # a default
    return found


FAILURES = _failures()


def fail_once(site: Site, kind: str) -> str:
    """Make a step fail, and check that nothing unnamed is left; return what happened."""
    newcomer = Newcomer(f"f{uuid4().hex[:12]}@example.org", "Fay Ling", "1", "member")
    file, home = site.write([newcomer]), site.home()
    before = len(site.detour.mailed)
    with FAILURES[kind](site) as database:  # type: ignore[attr-defined] # all are context managers
        done = site.run(file, home, database)
    mailed = len(site.detour.mailed) - before
    met = "succeeded" if done.code == 0 else "reverted"
    if done.code == 0:
        site.check_complete([newcomer])
    else:
        account = site.provided([newcomer]).get(newcomer.email)
        user = site.stored([newcomer]).get(newcomer.email)
        if account or user:
            met = "named"
            assert "remains" in done.err or "unknown" in done.err, done.err
            assert newcomer.email in done.err
            if account and "remains" in done.err:
                assert account[0] in done.err, done.err
        if mailed:
            assert "e-mail" in done.err or "Invitation to" in done.err, done.err
    again = site.run(file, home)
    assert again.code == 0, again.err
    # An e-mail whose link was taken back is followed by another one.
    site.check_complete([newcomer], mails=None)
    steps = [
        one
        for log in sorted((home / "state" / "steps").glob("*.jsonl"))[:1]
        for one in step_log.read(log)
    ]
    assert all(one.state is not step_log.StepState.BEGIN for one in steps), steps
    return met


# Pairs


def pair_once(site: Site, dice: random.Random) -> str:
    """Have two operators onboard the same person; return how the second one ended."""
    newcomers = site.newcomers(1, dice)
    file = site.write(newcomers)
    processes = [site.start(file, site.home()) for _ in range(2)]
    results = sorted((ended(process) for process in processes), key=lambda one: one.code)
    first, second = results
    assert first.code == 0, first.err
    site.check_complete(newcomers)
    if second.code == 0:
        outcomes = {row["outcome"] for one in results for row in json.loads(one.out)}
        assert "unchanged" in outcomes, outcomes
        return "found it complete"
    assert second.code == 7, second.err
    said = ("Another run is onboarding", "changed after the plan")
    assert any(words in second.err for words in said), second.err
    assert "nothing was written" in second.err
    return "reported the other one"


# The program


def main() -> int:
    """Run the campaign; exit with 1 if anything ended badly."""
    chosen = _parser().parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dice, parts = random.Random(chosen.seed), chosen.only or _PARTS
    with tempfile.TemporaryDirectory(prefix="aspen-people-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's account needs to pass through
        zygote.use_folder(folder)
        try:
            server = Server(folder)
            with opened(folder, server) as site:
                if "kills" in parts:
                    _run_kills(site, chosen.kills, dice)
                if "failures" in parts:
                    _run_failures(site)
                if "pairs" in parts:
                    _run_pairs(site, chosen.pairs, dice)
            if "bulk" in parts:
                with opened(folder, server, "--burst", str(BURST), "--rate", str(RATE)) as site:
                    timing = bulk(site, chosen.people)
                    sys.stdout.write(f"{timing}\n")
                    assert timing.seconds <= SLOWER * timing.required
            server.close()
        finally:
            Cluster(folder).reset()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make accidents-identity", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--people", type=int, default=500, help="number of people in bulk")
    parser.add_argument("--only", action="append", choices=_PARTS)
    parser.add_argument("--seed", type=int, default=1)
    return parser


def _run_kills(site: Site, times: int, dice: random.Random) -> None:
    met: Counter[str] = Counter()
    while met.total() < times:
        where = kill_once(site, dice)
        if where is not None:
            met[where] += 1
    _tell(f"{times} kills at step boundaries, all completed by the same command", met)


def _run_failures(site: Site) -> None:
    rows = [f"| {kind} | {fail_once(site, kind)} |\n" for kind in FAILURES]
    sys.stdout.write("| failure | end |\n|---|---|\n" + "".join(rows))
    sys.stdout.flush()


def _run_pairs(site: Site, times: int, dice: random.Random) -> None:
    met = Counter(pair_once(site, dice) for _ in range(times))
    _tell(f"{times} pairs of operators; the second one", met)


def _tell(head: str, met: Counter[str]) -> None:
    sys.stdout.write(f"| {head} | times |\n|---|--:|\n")
    for what, count in sorted(met.items()):
        sys.stdout.write(f"| {what} | {count} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
