"""A source with canaries in every column with personal data, and destinations to copy it to."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg2
from sqlalchemy.engine import make_url

from aspen.database.engine import Database
from aspencli.copies.beside import leftovers
from aspencli.copies.dump import zstd
from tests import zygote
from tests.conftest import CliResult, Server

MARK = "KANARI"
PLANTED: dict[str, dict[str, str]] = {
    # An expression for each column; %s is a canary that is unique to the column and the row.
    "users": dict.fromkeys(
        ("name", "email", "auth0_user_id", "gisaid_submitter_id", "split_id", "analytics_id"), "%s"
    ),
    "groups": {
        **dict.fromkeys(
            ("name", "address", "prefix", "division", "location", "auth0_org_id"), "%s"
        ),
        "submitting_lab": "%s",
        "tree_parameters": "jsonb_build_object('note', %s)",
    },
    "samples": {
        **dict.fromkeys(("private_identifier", "sample_collected_by"), "%s"),
        **dict.fromkeys(
            ("sample_collector_contact_email", "sample_collector_contact_address"), "%s"
        ),
        **dict.fromkeys(("purpose_of_sampling", "specimen_processing"), "%s"),
        "public_identifier": "'hCoV-19/' || %s",
        "authors": "jsonb_build_array(%s, %s || ' junior')",
        "original_submission": (
            "json_build_object('private_identifier', private_identifier, 'comment', %s,"
            " 'sample', json_build_object('authors', authors, 'public_identifier',"
            " public_identifier), 'collection_date', collection_date, %s, 1)"
        ),
    },
    "accessions": {"accession": "'EPI_ISL_' || %s"},
    "sample_lineages": {"raw_lineage_output": "jsonb_build_object('taxon', %s, 'note', %s)"},
    "sample_qc_metrics": {"raw_qc_output": "jsonb_build_object('seqName', %s, 'errors', %s)"},
    "phylo_runs": {
        "name": "%s",
        "template_file_path": "%s",
        "template_args": "jsonb_build_object('name', %s, 'location_id', 1)",
        "gisaid_ids": "jsonb_build_array(%s, 'hCoV-19/' || %s)",
    },
    "phylo_trees": {
        "name": "%s",
        "s3_key": "%s",
        "resolved_template_args": "jsonb_build_object('division', %s)",
    },
}


def plant(address: str) -> int:
    """Put a canary into every column with personal data; return their number."""
    count = 0
    with connected(address) as cursor:
        for table, columns in PLANTED.items():
            for column, expression in columns.items():
                canary = f"('{MARK}-{table}-{column}-' || row_number() OVER (ORDER BY t.ctid))"
                cursor.execute(
                    f"UPDATE aspen.{table} u SET {column} = n.value FROM (SELECT t.ctid AS id,"
                    f" {expression.replace('%s', canary)} AS value FROM aspen.{table} t) n"
                    " WHERE u.ctid = n.id"
                )
                count += cursor.rowcount
    return count


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a cursor of a connection that commits each statement."""
    url = make_url(address)
    connection = psycopg2.connect(
        host=url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        dbname=url.database,
    )
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()


def ask(address: str, query: str) -> Any:
    """Return the first value of a query."""
    with connected(address) as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]


def built(address: str) -> list[str]:
    """Return the names of databases that were built beside one and are left."""
    database = opened(address)
    try:
        return leftovers(database)
    finally:
        database.dispose()


def content(address: str) -> dict[str, str]:
    """Return a fingerprint of each table; of trees, without the places of their files."""
    found = {}
    with connected(address) as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'aspen' ORDER BY 1")
        for (table,) in cursor.fetchall():
            row = "to_jsonb(t) - 's3_bucket' - 's3_key'" if table == "phylo_trees" else "t"
            cursor.execute(
                f"SELECT count(*) || ' ' || coalesce(md5(string_agg(v, '' ORDER BY v)), '')"
                f" FROM (SELECT ({row})::text AS v FROM aspen.{table} t) r"
            )
            found[table] = cursor.fetchone()[0]
    return found


def text_of(address: str) -> str:
    """Return all rows of a database as text."""
    parts = []
    with connected(address) as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'aspen'")
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT t::text FROM aspen.{table} t")
            parts += [row for (row,) in cursor.fetchall()]
    return "\n".join(parts)


def unpacked(folder: Path) -> bytes:
    """Return all bytes of a dump: as they are, and unpacked."""
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        found.append(data)
        if data.startswith(b"\x28\xb5\x2f\xfd"):
            found.append(zstd().decompress(data))
    return b"\n".join(found)


class Storage:
    """The buckets of a test, and the variables with which commands reach them.

    Attributes:
        source: The name of the bucket with the trees of the source.
        target: The name of the destination's bucket.
    """

    def __init__(self, address: str):
        number = next(_numbers)
        self.source, self.target = f"trees-of-source-{number}", f"trees-of-target-{number}"
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        place = {"endpoint_url": address, "region_name": REGION}
        self.client = boto3.client("s3", **place, **keys)
        self._secrets = boto3.client("secretsmanager", **place, **keys)
        self._secret = f"{self.target}/genepi-config"
        self.environment: dict[str, str | None] = {
            "ASPEN_AWS_REGION_SOURCE": REGION,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_DEFAULT_REGION": REGION,
        }
        for name in ("SOURCE", "STAGING", "LOCAL", "PROD"):
            self.environment[f"ASPEN_AWS_ENDPOINT_URL_{name}"] = address
            self.environment[f"ASPEN_SECRET_NAME_{name}"] = self._secret

    def __enter__(self) -> Storage:
        for name in (self.source, self.target):
            where: Any = {"LocationConstraint": REGION}
            self.client.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        text = json.dumps({"S3_db_bucket": self.target})
        self._secrets.create_secret(Name=self._secret, SecretString=text)
        return self

    def __exit__(self, *_: object) -> None:
        for bucket in (self.source, self.target):
            for key in self.objects(bucket):
                self.client.delete_object(Bucket=bucket, Key=key)
            self.client.delete_bucket(Bucket=bucket)
        self._secrets.delete_secret(SecretId=self._secret, ForceDeleteWithoutRecovery=True)

    def objects(self, bucket: str | None = None, *, prefix: str = "") -> list[str]:
        """Return the keys in a bucket, by default the destination's."""
        where = {"Bucket": bucket or self.target, "Prefix": prefix}
        found = self.client.list_objects_v2(**where).get("Contents", ())
        return [each["Key"] for each in found]

    def read(self, key: str, bucket: str | None = None) -> bytes:
        """Return an object, by default of the destination's bucket."""
        where = {"Bucket": bucket or self.target, "Key": key}
        body: bytes = self.client.get_object(**where)["Body"].read()
        return body

    def put(self, key: str, body: bytes, bucket: str | None = None) -> None:
        """Write an object, by default to the destination's bucket."""
        self.client.put_object(Bucket=bucket or self.target, Key=key, Body=body)

    def content(self) -> dict[str, bytes]:
        """Return the objects of the destination's bucket."""
        return {key: self.read(key) for key in self.objects()}


REGION = "us-west-2"
_numbers = itertools.count()


@dataclass
class Lab:
    """A source and a destination, and the command that copies between them.

    Attributes:
        source: The address of the source, which is the target ``prod`` or ``source``.
        target: The address of the destination, which is the target ``staging``.
        folder: A folder for dumps.
        storage: The buckets of both.
    """

    source: str
    target: str
    folder: Path
    storage: Storage

    def environment(self, **more: str | None) -> dict[str, str]:
        """Return the environment in which both targets are known."""
        config = self.folder / "config.toml"
        config.write_text('[targets.source]\nsafety = "shared"\n')
        given: dict[str, str | None] = {
            **os.environ,
            "ASPEN_CONFIG": str(config),
            "ASPEN_DATABASE_URL_SOURCE": self.source,
            "ASPEN_DATABASE_URL_STAGING": self.target,
            "ASPEN_AUDIT_BUCKET_SOURCE": "none",
            **self.storage.environment,
            **more,
        }
        return {name: value for name, value in given.items() if value is not None}

    def __call__(self, *words: str, env: dict[str, str | None] | None = None) -> CliResult:
        done = zygote.run_text(words, env=self.environment(**(env or {})), timeout=120)
        return CliResult(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: str, env: dict[str, str | None] | None = None) -> CliResult:
        """Run a command that has to succeed."""
        done = self(*words, env=env)
        assert done.code == 0, done.err
        return done

    def dump(self, name: str = "dump", *words: str) -> Path:
        """Write a dump of the source, and return its folder."""
        self.ok("--env", "source", "db", "dump", str(self.folder / name), *words)
        return self.folder / name

    def referenced(self) -> set[str]:
        """Return the keys of the files that rows of the destination refer to in its bucket."""
        with connected(self.target) as cursor:
            cursor.execute(
                "SELECT s3_key FROM aspen.phylo_trees WHERE s3_bucket = %s", (self.storage.target,)
            )
            return {key for (key,) in cursor.fetchall()}

    def restore(self, place: Path | str, *words: str) -> CliResult:
        """Restore the destination."""
        return self("--env", "staging", "db", "restore", str(place), *CONFIRMED, *words)


CONFIRMED = ("--confirm", "staging", "-o", "json")
AS_PRODUCTION: dict[str, str | None] = {"ASPEN_DATABASE_URL_SOURCE": None}


def as_production(lab: Lab) -> dict[str, str | None]:
    """Return the variables that make the source the target ``prod``."""
    return {"ASPEN_DATABASE_URL_SOURCE": None, "ASPEN_DATABASE_URL_PROD": lab.source}


@contextmanager
def made_from(postgres: Server, template: str) -> Iterator[str]:
    """Yield the address of a new database made from a template."""
    name = postgres.create(template=template)
    try:
        yield postgres.url(name)
    finally:
        postgres.drop(name)


def opened(address: str) -> Database:
    """Return a database whose sessions may write."""
    return Database(address, application_name="tests", writable=True)
