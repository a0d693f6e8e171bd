"""``make identity-differences``: compare and sync 5,000 users in 200 groups.

300 differences of each kind are planted at random. ``identity diff`` must find all of them and no
others with at most 250 requests, counted by the provider. A sync in either direction must leave
both sides equal, and a second one must write nothing. Then smaller syncs are killed at random
moments, and the same command must complete them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from aspen.database.engine import Database
from aspen.database.migrate import upgrade
from aspen.local.postgres.prepare import prepare
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspencli.identity.comparison import Kind
from tests import zygote
from tests.identity.gate import Loss, gated
from tests.identity.population import Population, Side, as_found, everything, population
from tests.identity.site import Site, running_provider

_MOST_REQUESTS = 250
_MOST_CHANGES = "1000000"
_CONSENT = ("--delete", "--max-changes", _MOST_CHANGES, "--confirm", "local")
_LEFT = {
    "auth0": {Kind.UNKNOWN_ROLE, Kind.ORGANIZATION, Kind.INVITATION},
    "db": {Kind.UNKNOWN_ROLE, Kind.INVITATION},
}
"""The kinds that a sync from each source leaves, because they need a decision."""
_SMALL = (150, 12, 8)
_KILLS_IN_A_ROW = 3
_AIMED = 0.8
_PATIENCE_S = 120
_DIFFERENT = 7


@dataclass
class Trial:
    """A target, and what went wrong with it.

    Attributes:
        site: Both sides.
        home: The folder for the program's own files.
        faults: What was not as it must be.
    """

    site: Site
    home: Path
    faults: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of commands."""
        return {**os.environ, "ASPEN_HOME": str(self.home), **self.site.environment}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "aspencli", *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def expect(self, what: str, *, holds: bool) -> None:
        """Note a fault unless something holds."""
        if not holds:
            self.faults.append(what)
            tell(f"  FAILED: {what}")


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run everything; exit with 1 if anything was not as it must be."""
    chosen = _parser().parse_args()
    # Background jobs start with SIGINT ignored, and the interrupted processes would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with _trial() as trial:
        for seed in range(chosen.seed, chosen.seed + chosen.rounds):
            made = population(chosen.users, chosen.groups, chosen.each, seed)
            tell(f"seed {seed}: {len(made.planted):,} differences, {chosen.each} of each kind")
            _diff(trial, made)
            for source in ("auth0", "db"):
                _sync(trial, made, source)
        _lose(trial)
        _kill(trial, chosen.kills, random.Random(chosen.seed))
        tell("all as it must be" if not trial.faults else f"{len(trial.faults)} FAILED")
        return 1 if trial.faults else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make identity-differences", description=__doc__)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--groups", type=int, default=200)
    parser.add_argument("--each", type=int, default=300, help="differences of each kind")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    return parser


@contextmanager
def _trial() -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="aspen-identity-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the server's account needs to pass through
        zygote.use_folder(folder)
        cluster = Cluster(folder / "data")
        try:
            cluster.up()
            prepare(cluster)
            engine = sa.create_engine(cluster.url(user=SUPERUSER), poolclass=NullPool)
            upgrade(engine)
            engine.dispose()
            database = Database(cluster.url(user=SUPERUSER), writable=True)
            with running_provider(folder / "provider" / "state") as identity:
                yield Trial(Site(identity, database), folder / "home")
            database.dispose()
        finally:
            cluster.reset()


def _diff(trial: Trial, made: Population) -> None:
    trial.site.fill(made)
    for options, most in (((), _MOST_REQUESTS), (("--invitations",), None)):
        before, began = trial.site.requests(), time.monotonic()
        done = trial.run("identity", "diff", "-o", "json", *options)
        seconds, sent = time.monotonic() - began, trial.site.requests() - before
        found = as_found(json.loads(done.stdout))
        wanted = made.planted if options else made.planted - made.of(Kind.INVITATION)
        name = " ".join(("identity diff", *options))
        tell(
            f"  {name}: {len(found & wanted):,} of {len(wanted):,} found, "
            f"{len(found - wanted):,} invented, {sent} requests, {seconds:.1f} s"
        )
        trial.expect(f"{name}: exit code {done.returncode}", holds=done.returncode == _DIFFERENT)
        trial.expect(f"{name}: {_numbers(wanted - found)} missed", holds=wanted <= found)
        trial.expect(f"{name}: {_numbers(found - wanted)} invented", holds=found <= wanted)
        if most is not None:
            trial.expect(f"{name}: {sent} requests", holds=sent <= most)


def _sync(trial: Trial, made: Population, source: str) -> None:
    site, name = trial.site, f"identity sync --source {source}"
    site.fill(made)
    began = time.monotonic()
    done = trial.run("identity", "sync", "--source", source, *_CONSENT)
    seconds = time.monotonic() - began
    trial.expect(f"{name}: exit code {done.returncode}: {done.stderr}", holds=not done.returncode)
    left = made.of(*_LEFT[source]) - made.of(Kind.INVITATION)
    trial.expect(f"{name}: {_numbers(site.unequal ^ left)} differ", holds=site.unequal == left)
    again, state, writes = _again(trial, source)
    trial.expect(f"{name}: second exit code {again}", holds=again == 0)
    trial.expect(f"{name}: the second run changed something", holds=state)
    trial.expect(f"{name}: the second run sent {writes} writes", holds=not writes)
    tell(f"  {name}: {seconds:.1f} s; left: {_numbers(left)}; the second run wrote nothing")


def _again(trial: Trial, source: str) -> tuple[int, bool, int]:
    site = trial.site
    before: tuple[Side, Side] = site.provider_side, site.database_side
    writes = site.writes()
    done = trial.run("identity", "sync", "--source", source, *_CONSENT)
    same = (site.provider_side, site.database_side) == before
    return done.returncode, same, site.writes() - writes


def _kill(trial: Trial, kills: int, chance: random.Random) -> None:
    """Kill syncs at random moments, and let the same command complete them."""
    site, met, syncs = trial.site, Counter[str](), 0
    while met.total() < kills:
        syncs += 1
        made, source = population(*_SMALL, seed=syncs), chance.choice(("db", "db", "auth0"))
        site.fill(made)
        left = made.of(*_LEFT[source]) - made.of(Kind.INVITATION)
        words = ("identity", "sync", "--source", source, *_CONSENT)
        for _ in range(_KILLS_IN_A_ROW):
            before = site.database_side
            stage = _killed(trial, words, chance)
            met[f"{source}: {stage}"] += 1
            if source == "auth0":
                whole = site.database_side == before or site.unequal == left
                trial.expect(f"sync {syncs}: half of a transaction", holds=whole)
        done = trial.run(*words)
        trial.expect(
            f"sync {syncs}: exit code {done.returncode}: {done.stderr}", holds=done.returncode == 0
        )
        trial.expect(f"sync {syncs} ({source}): not equal", holds=site.unequal == left)
        names = Counter(site.provider_side.groups.values())
        trial.expect(f"sync {syncs}: an organization twice", holds=max(names.values()) == 1)
        code, same, writes = _again(trial, source)
        trial.expect(f"sync {syncs}: the last run wrote", holds=same and not writes and code == 0)
    tell(f"  {met.total()} kills of {syncs} syncs, each completed by the same command")
    for stage, number in sorted(met.items()):
        tell(f"    {stage}: {number}")


def _lose(trial: Trial) -> None:
    """Lose each request that writes, or its answer, and let the same command complete the sync."""
    words = ("identity", "sync", "--source", "db", "--sync-invitations", *_CONSENT)
    site, met = trial.site, Counter[str]()
    with gated(site.identity) as gate:
        site.address = gate.address
        site.fill(everything())
        trial.run(*words)
        number = gate.writes
        for loss in Loss:
            for place in range(1, number + 1):
                site.fill(everything())
                gate.lose(place, loss)
                code = trial.run(*words).returncode
                met[f"{loss.value} lost, exit code {code}"] += gate.lost
                done = trial.run(*words)
                trial.expect(f"write {place}: {done.stderr}", holds=done.returncode == 0)
                trial.expect(f"write {place}: not equal", holds=not site.unequal)
                names = sorted(site.provider_side.groups.values())
                trial.expect(f"write {place}: {names}", holds=names == ["New lab", "Renamed lab"])
        site.address = None
    tell(f"  {met.total()} lost writes, each sync completed by the same command")
    for what, times in sorted(met.items()):
        tell(f"    {what}: {times}")


def _killed(trial: Trial, words: Sequence[str], chance: random.Random) -> str:
    """Kill a command at a random moment, and return what it was doing."""
    before = trial.site.writes()
    process = zygote.start(
        list(words),
        env=trial.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # Most kills come after some writes, which differ most in what a kill leaves behind.
    aim = chance.randrange(1, 80) if chance.random() < _AIMED else None
    end = time.monotonic() + (_PATIENCE_S if aim else chance.uniform(0, 3))
    while process.poll() is None and time.monotonic() < end:
        if aim and trial.site.writes() >= before + aim:
            break
        time.sleep(0.001)
    process.kill()
    process.wait()
    written = trial.site.writes() - before
    if process.returncode == 0:
        return "already done"
    return "while it wrote" if written else "before the first request that writes"


def _numbers(found: set[tuple[str, str, str]]) -> str:
    numbers = Counter(kind for kind, _group, _person in found)
    return ", ".join(f"{kind}: {number}" for kind, number in sorted(numbers.items())) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
