"""``make accidents-copies`` and ``make bench-copies``: dumps, restores, and copies of a database.

With ``--kills``, each accident starts a dump, a restore, or a copy, kills it with SIGKILL at a
random moment, and checks that the destination is as before or complete, also its files of trees.
With ``--samples``, a scrubbed copy is compared with the same rows through a hand-written pipe, into
the same schema; ``--trees`` adds trees, whose files only the copy has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
import psycopg2
from moto.server import ThreadedMotoServer
from sqlalchemy.engine import make_url

from aspen.database import migrate
from aspen.database.engine import Database
from aspen.local.aws.content import DB_BUCKET, REGION, ObjectFolder
from aspen.local.postgres.server import SUPERUSER, Cluster
from aspen.local.seed import seed_base, seed_roles, seed_samples

_SOURCE, _TARGET = "source_db", "target_db"
_TARGET_BUCKET, _SECRET = "trees-of-target", "target/genepi-config"
_MINE = "phylo_run/mine/ncov_aspen.json"  # an object that no copy may change
_TIPS = 3_000
_GLANCE_S = 0.05
_KINDS = ("dump", "restore", "copy")
_USERS = 1_000
_SETTINGS = {"max_wal_size": "4GB", "shared_buffers": "256MB"}
# The same masks, written by hand for the columns that have most of the data.
_HASH = "left(encode(sha256(convert_to('{key}' || {column}, 'UTF8')), 'hex'), 20)"
_PEOPLE = (
    "(SELECT coalesce(jsonb_agg('Author ' || " + _HASH.replace("{column}", "a") + "), '[]')"
    " FROM jsonb_array_elements_text({column}::jsonb) a)"
)
_SUBMISSION = (
    "CASE WHEN {column}::text = '{{}}' THEN {column} ELSE (SELECT json_build_object("
    + ", ".join(
        f"'{name}', " + _HASH.replace("{column}", f"(j ->> '{name}')")
        for name in ("private_identifier", "public_identifier")
    )
    + ", 'authors', "
    + _PEOPLE.replace("{column}", "(j -> 'authors')")
    + ") FROM (SELECT {column}::jsonb AS j OFFSET 0) s) END"
)
_LINEAGE_KEYS = ("scorpio_call", "scorpio_support", "scorpio_conflict")
_QC_KEYS = (
    *("clade", "Nextclade_pango", "qc.overallScore", "qc.overallStatus", "coverage"),
    *("totalSubstitutions", "totalDeletions", "totalInsertions", "totalMissing"),
)


def _kept(keys: Sequence[str]) -> str:
    """Return the expression for an object with these keys only."""
    members = ", ".join(f"'{key}', {{column}} -> '{key}'" for key in keys)
    return f"jsonb_strip_nulls(jsonb_build_object({members}))"


_PIPED = {
    "users": {
        **dict.fromkeys(("name", "email", "auth0_user_id", "split_id", "analytics_id"), _HASH),
        "gisaid_submitter_id": _HASH,
    },
    "groups": dict.fromkeys(("name", "prefix", "auth0_org_id", "division", "location"), _HASH),
    "samples": {
        **dict.fromkeys(("private_identifier", "public_identifier"), _HASH),
        **dict.fromkeys(
            (
                *("sample_collected_by", "sample_collector_contact_email"),
                "sample_collector_contact_address",
            ),
            _HASH,
        ),
        "collection_date": "collection_date - 30",
        "original_submission": _SUBMISSION,
        "authors": _PEOPLE,
    },
    "accessions": {"accession": _HASH},
    "sample_lineages": {"raw_lineage_output": _kept(_LINEAGE_KEYS)},
    "sample_qc_metrics": {"raw_qc_output": _kept(_QC_KEYS)},
}


def main() -> int:
    """Run what was asked for; exit with 1 if anything was wrong."""
    chosen = _parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="aspen-copies-", dir=chosen.folder) as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server's account needs to pass through
        with Site(folder) as site:
            if chosen.samples:
                return bench(site, chosen.samples, chosen.runs, chosen.trees)
            return accidents(site, chosen.kills, chosen.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make accidents-copies", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=int, default=0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--trees", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=None)
    return parser


class Site:
    """A server with a source and a destination, and the command that copies between them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._cluster = Cluster(folder / "server", settings=_SETTINGS)

    def __enter__(self) -> Site:
        self._cluster.up()
        self._admin = self._cluster.url("postgres", SUPERUSER)
        self.create(_SOURCE)
        self.create(_TARGET)
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        self._aws = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._aws.start()
        host, port = self._aws.get_host_and_port()
        self._aws_url = f"http://{host}:{port}"
        self.s3 = self._client("s3")
        for bucket in (DB_BUCKET, _TARGET_BUCKET):
            where: Any = {"LocationConstraint": REGION}
            self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        self.s3.put_object(Bucket=_TARGET_BUCKET, Key=_MINE, Body=b"mine")
        secret = json.dumps({"S3_db_bucket": _TARGET_BUCKET})
        self._client("secretsmanager").create_secret(Name=_SECRET, SecretString=secret)
        return self

    def __exit__(self, *_: object) -> None:
        self._aws.stop()
        self._cluster.reset()

    def _client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=self._aws_url,
            region_name=REGION,
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )

    def objects(self) -> set[str]:
        """Return the keys in the bucket of the destination."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=_TARGET_BUCKET)
        return {one["Key"] for page in pages for one in page.get("Contents", ())}

    def referenced(self) -> set[str]:
        """Return the keys in it that rows of the destination refer to."""
        rows = self.ask(
            _TARGET, f"SELECT s3_key FROM aspen.phylo_trees WHERE s3_bucket = '{_TARGET_BUCKET}'"
        )
        return {key for (key,) in rows}

    def url(self, name: str) -> str:
        """Return the address of a database."""
        return make_url(self._admin).set(database=name).render_as_string(False)

    def ask(self, name: str, *statements: str) -> list[Any]:
        """Run statements, each in its own transaction, and return the rows of the last."""
        url = make_url(self.url(name))
        with contextlib.closing(
            psycopg2.connect(
                host=url.host,
                port=url.port,
                user=url.username,
                password=url.password,
                dbname=url.database,
            )
        ) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def create(self, name: str) -> None:
        """Create a database with the newest schema."""
        self.ask("postgres", f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        database = Database(self.url(name), writable=True)
        migrate.upgrade(database.engine)
        database.dispose()

    def databases(self) -> list[str]:
        """Return the names of all databases."""
        return [name for (name,) in self.ask("postgres", "SELECT datname FROM pg_database")]

    def content(self, name: str) -> dict[str, str]:
        """Return a fingerprint of each table."""
        tables = self.ask(name, "SELECT tablename FROM pg_tables WHERE schemaname = 'aspen'")
        found = {}
        for (table,) in tables:
            row = "to_jsonb(t) - 's3_bucket' - 's3_key'" if table == "phylo_trees" else "t"
            query = (
                "SELECT count(*) || coalesce(md5(string_agg(v, '' ORDER BY v)), '')"
                f" FROM (SELECT ({row})::text AS v FROM aspen.{table} t) r"
            )
            found[table] = str(self.ask(name, query)[0][0])
        return found

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start the command."""
        config = self.folder / "config.toml"
        config.write_text('[targets.source]\nsafety = "shared"\naudit_bucket = "none"\n')
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ASPEN_")},
            "ASPEN_HOME": str(self.folder / "home"),
            "ASPEN_CONFIG": str(config),
            "ASPEN_DATABASE_URL_SOURCE": self.url(_SOURCE),
            "ASPEN_DATABASE_URL_STAGING": self.url(_TARGET),
            "ASPEN_AUDIT_BUCKET_STAGING": "none",
            "ASPEN_SECRET_NAME_STAGING": _SECRET,
            "ASPEN_AWS_ENDPOINT_URL_SOURCE": self._aws_url,
            "ASPEN_AWS_ENDPOINT_URL_STAGING": self._aws_url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "aspencli", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self, *words: str) -> str:
        """Run the command to its end, and return its error; empty if it succeeded."""
        with self.start(*words) as process:
            _, said = process.communicate()
        return said.decode() if process.returncode else ""


# Accidents


def accidents(site: Site, kills: int, seed: int) -> int:
    """Kill commands, and report what was left in between."""
    chance = random.Random(seed)
    database = Database(site.url(_SOURCE), writable=True)
    objects = ObjectFolder(site.folder / "objects")
    seed_roles(database, objects)
    database.dispose()
    for bucket, key, body in objects:
        if bucket == DB_BUCKET:
            site.s3.put_object(Bucket=bucket, Key=key, Body=body)
    database = Database(site.url(_TARGET), writable=True)
    seed_base(database)
    database.dispose()
    site.ask("postgres", f"CREATE DATABASE before_db TEMPLATE {_TARGET}")
    before, after = site.content(_TARGET), site.content(_SOURCE)
    dump = site.folder / "dump"
    if said := site.finish(*_words(site, "dump", dump)):
        sys.stderr.write(said)
        return 1
    tally: Counter[str] = Counter()
    longest = {kind: _time(site, kind, dump) for kind in _KINDS}
    dropped = _reset(site)
    for number in range(kills):
        kind = chance.choice(_KINDS)
        place = site.folder / "killed" if kind == "dump" else dump
        with site.start(*_words(site, kind, place)) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, longest[kind] * 1.05))
            process.kill()
        found = site.content(_TARGET)
        state = "before" if found == before else "complete" if found == after else "BETWEEN"
        if kind == "dump":
            state = "complete" if place.exists() else "before"
            if place.exists() and site.finish("db", "dumps", "verify", str(place)):
                state = "BETWEEN"
            shutil.rmtree(place, ignore_errors=True)
        if not site.referenced() <= site.objects():
            state = "TREES WITHOUT FILES"
        tally[f"{kind}: {state}"] += 1
        sys.stdout.write(f"{number + 1} of {kills}: {kind}: {state}\n")
        sys.stdout.flush()  # a campaign that is cut short still shows what it found
        if found == after:
            dropped |= _reset(site)
    for kind in _KINDS:
        place = site.folder / "killed" if kind == "dump" else dump
        if said := site.finish(*_words(site, kind, place)):
            sys.stdout.write(f"the run after the kills failed: {kind}\n{said}")
            tally[f"{kind}: RERUN FAILED"] += 1
    left = [name for name in site.databases() if name.startswith("aspencli_")]
    left += [str(path) for path in site.folder.glob(".killed.*")]
    left += sorted((site.objects() - dropped) ^ {_MINE, *site.referenced()})
    for state, count in sorted(tally.items()):
        sys.stdout.write(f"{state}: {count}\n")
    sys.stdout.write(f"{kills} kills; left behind after the next run: {left or 'nothing'}\n")
    return 1 if left or any(state.isupper() for _, state in _states(tally)) else 0


def _states(tally: Counter[str]) -> list[tuple[str, str]]:
    return [(kind, state) for kind, _, state in (one.partition(": ") for one in tally)]


def _words(site: Site, kind: str, place: Path) -> tuple[str, ...]:
    confirmed = ("--confirm", "staging", "--no-input", "--force")
    if kind == "dump":
        return "--env", "source", "db", "dump", str(place), "--no-scrub"
    if kind == "restore":
        return "--env", "staging", "db", "restore", str(place), *confirmed
    return "db", "copy", "--from", "source", "--to", "staging", "--no-scrub", *confirmed


def _time(site: Site, kind: str, dump: Path) -> float:
    began = time.monotonic()
    place = site.folder / "timed" if kind == "dump" else dump
    if said := site.finish(*_words(site, kind, place)):
        sys.stdout.write(said)
    return time.monotonic() - began


def _reset(site: Site) -> set[str]:
    """Drop the copy; return the keys of its trees, which nothing refers to any more."""
    files = site.referenced()
    site.ask(
        "postgres",
        f"DROP DATABASE {_TARGET} WITH (FORCE)",
        f"CREATE DATABASE {_TARGET} TEMPLATE before_db",
    )
    return files


# The benchmark


def bench(site: Site, samples: int, runs: int, trees: int) -> int:
    """Compare a scrubbed copy with a pipe, and print the ratio."""
    database = Database(site.url(_SOURCE), writable=True)
    seed_base(database)
    seed_samples(database, samples)
    database.dispose()
    site.ask(
        _SOURCE,
        "INSERT INTO aspen.users (name, email, auth0_user_id, system_admin, agreed_to_tos,"
        " split_id, analytics_id) SELECT 'Name ' || n, n || '@example.org', 'auth0|' || n, false,"
        f" true, 's' || n, 'a' || n FROM generate_series(1, {_USERS}) n",
        "UPDATE aspen.samples SET original_submission = json_build_object('private_identifier',"
        " private_identifier, 'public_identifier', public_identifier, 'authors', authors)"
        " WHERE id % 10 = 0",
        *_tree_rows(trees),
        "VACUUM ANALYZE",
        "CHECKPOINT",
    )
    if trees:
        _write_trees(site)
    size = site.ask(_SOURCE, "SELECT pg_size_pretty(pg_database_size(current_database()))")[0][0]
    sys.stdout.write(f"{samples:,} samples, {_USERS:,} users, {trees:,} trees, {size}\n")
    ours, theirs = [], []
    memory = 0
    for _ in range(runs):
        piped = _pipe(site)
        theirs.append(piped)
        seconds, used = _copy(site)
        ours.append(seconds)
        memory = max(memory, used)
        sys.stdout.write(f"pipe {piped:.1f} s; db copy --scrub {seconds:.1f} s, {used} MB\n")
    ratio = sorted(ours)[len(ours) // 2] / sorted(theirs)[len(theirs) // 2]
    sys.stdout.write(f"ratio {ratio:.2f}, at most {memory} MB\n")
    return 0 if ratio <= 1.3 and memory <= 150 else 1


def _tree_rows(trees: int) -> list[str]:
    """Return the statements that add trees with the same number of samples each."""
    if not trees:
        return []
    tree = (
        f"SELECT id, '{DB_BUCKET}', 'tree-' || id, 'Tree ' || id, 'OVERVIEW', 1, 1"
        " FROM aspen.entities WHERE entity_type = 'PHYLO_TREE'"
    )
    samples = (
        "SELECT t.entity_id, s.id FROM aspen.phylo_trees t CROSS JOIN LATERAL (SELECT id"
        f" FROM aspen.samples WHERE id % 7 = t.entity_id % 7 LIMIT {_TIPS}) s"
    )
    columns = "entity_id, s3_bucket, s3_key, name, tree_type, pathogen_id, contextual_repository_id"
    entities = f"SELECT 'PHYLO_TREE', 1 FROM generate_series(1, {trees})"
    return [
        f"INSERT INTO aspen.entities (entity_type, group_id) {entities}",
        f"INSERT INTO aspen.phylo_trees ({columns}) {tree}",
        f"INSERT INTO aspen.phylo_tree_samples (phylo_tree_id, sample_id) {samples}",
    ]


def _write_trees(site: Site) -> None:
    """Write the files of all trees."""
    rows = site.ask(
        _SOURCE,
        "SELECT t.s3_key, array_agg(s.public_identifier) FROM aspen.phylo_trees t"
        " JOIN aspen.phylo_tree_samples l ON l.phylo_tree_id = t.entity_id"
        " JOIN aspen.samples s ON s.id = l.sample_id GROUP BY 1",
    )
    traits = {"country": "USA", "division": "California", "pango_lineage": "BA.2", "author": "X"}
    for key, names in rows:
        tips = [
            {
                "name": name,
                "branch_attrs": {"mutations": {"nuc": ["A123C"]}},
                "node_attrs": {
                    "div": number,
                    "num_date": {"value": 2021.5},
                    **{trait: {"value": value} for trait, value in traits.items()},
                },
            }
            for number, name in enumerate(names)
        ]
        document = {"version": "v2", "meta": {"title": key}, "tree": {"children": tips}}
        site.s3.put_object(Bucket=DB_BUCKET, Key=key, Body=json.dumps(document).encode())


def _copy(site: Site) -> tuple[float, int]:
    """Copy with the command; return the seconds, and the megabytes that it used at most."""
    site.ask("postgres", "CHECKPOINT")
    began = time.monotonic()
    process = site.start(
        *("db", "copy", "--from", "source", "--to", "staging", "--confirm", "staging", "--force")
    )
    assert process.stderr is not None
    most = 0
    while process.poll() is None:
        most = max(most, _peak(process.pid))
        time.sleep(_GLANCE_S)
    seconds = time.monotonic() - began
    said = process.stderr.read()
    if process.returncode:
        raise SystemExit(said.decode())
    return seconds, most


def _peak(process: int) -> int:
    """Return the most megabytes that a process used so far.

    The maximum that the system reports at its end would include this process's, as of the fork.
    """
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1_024
    return 0


def _pipe(site: Site) -> float:
    """Copy as one would by hand: COPY to COPY, table by table, then keys and indexes."""
    site.ask("postgres", "DROP DATABASE IF EXISTS piped_db", "CHECKPOINT")
    began = time.monotonic()
    site.create("piped_db")
    later = _drop_keys(site)
    tables = [
        name
        for (name,) in site.ask(
            _SOURCE,
            "SELECT relname FROM pg_class WHERE relnamespace = 'aspen'::regnamespace"
            " AND relkind = 'r' ORDER BY relpages DESC",
        )
    ]
    # Two at a time, as there are two connections in ours.
    work = iter(tables)
    lock = threading.Lock()

    def run() -> None:
        while True:
            with lock:
                table = next(work, None)
            if table is None:
                return
            _pipe_table(site, table)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [each for each in later if "FOREIGN KEY" not in each]
    parts = [keys[::2], keys[1::2]]
    makers = [
        threading.Thread(
            target=site.ask, args=("piped_db", "SET maintenance_work_mem = '256MB'", *part)
        )
        for part in parts
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    site.ask("piped_db", "ANALYZE", *[each for each in later if "FOREIGN KEY" in each])
    return time.monotonic() - began


def _drop_keys(site: Site) -> list[str]:
    """Drop keys and indexes, and return the statements that create them."""
    found = site.ask(
        "piped_db",
        "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid), contype"
        " FROM pg_constraint WHERE connamespace = 'aspen'::regnamespace"
        " AND contype IN ('p', 'u', 'f') ORDER BY contype = 'p', contype = 'f'",
    )
    drops = [
        f"ALTER TABLE {table} DROP CONSTRAINT {name}"
        for table, name, _, _ in sorted(found, key=lambda row: row[3] != "f")
    ]
    site.ask("piped_db", *drops)
    indexes = site.ask(
        "piped_db", "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'aspen'"
    )
    site.ask("piped_db", *[f"DROP INDEX aspen.{name}" for name, _ in indexes])
    return [definition for _, definition in indexes] + [
        f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"
        for table, name, definition, _ in found
    ]


def _pipe_table(site: Site, table: str) -> None:
    columns = [
        name
        for (name,) in site.ask(
            _SOURCE,
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid ="
            f" 'aspen.{table}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
    ]
    masks = _PIPED.get(table, {})
    key = "0" * 64
    shown = ", ".join(
        masks[name].format(key=key, column=name) if name in masks else name for name in columns
    )
    psql = shutil.which("psql") or str(_bindir() / "psql")
    out, into = (
        [psql, "-qXc", statement, site.url(name).replace("+psycopg2", "")]
        for statement, name in (
            (f"COPY (SELECT {shown} FROM aspen.{table}) TO STDOUT", _SOURCE),
            (_loading(table, columns), "piped_db"),
        )
    )
    with subprocess.Popen(out, stdout=subprocess.PIPE) as reading:
        subprocess.run(into, stdin=reading.stdout, check=True)


def _loading(table: str, columns: list[str]) -> str:
    copy = f"COPY aspen.{table} ({', '.join(columns)}) FROM STDIN (FREEZE)"
    return f"BEGIN; TRUNCATE aspen.{table}; {copy}; COMMIT"


def _bindir() -> Path:
    from aspen.local.postgres.binaries import find_binaries

    return find_binaries().bindir


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
