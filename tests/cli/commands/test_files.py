"""``files``: the bucket beside the database, and downloads from it."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import sqlalchemy as sa

from aspen.database.engine import Database
from aspen.local.aws.content import CONFIG_NAME, REGION, ObjectFolder
from aspencli.deployments import emulator
from aspencli.errors import ConflictError
from tests import zygote
from tests.api.conftest import Cloud, running_cloud
from tests.cli.commands.ending import Ended, ended
from tests.conftest import Server
from tests.moto import running_moto

BUCKET = "genepi-db-data"
LARGE, MANY = "large-files", 3_000
TREE_KEY = "phylo_run/Redwood County/OVERVIEW/{}/ncov_aspen.json"
_numbers = itertools.count()


def large_objects() -> Iterator[tuple[str, str, bytes]]:
    for number in range(11, MANY + 11):
        yield LARGE, TREE_KEY.format(1_000_000 + number), b"{}"


@pytest.fixture(scope="module")
def cloud(roles_objects: ObjectFolder, _roles_template: str) -> Iterator[Cloud]:
    with running_cloud((*roles_objects, *large_objects())) as found:
        yield found


@dataclass
class FilesLab:
    """A database, a bucket that only this test uses, and a runner for commands."""

    cloud: Cloud
    database: Database
    bucket: str
    environment: Mapping[str, str]
    _call: Callable[..., Ended]

    def __call__(self, *arguments: str, **env: str) -> Ended:
        return self._call({**self.environment, **env}, ("files", *arguments))

    def rows(self, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
        ended = self(*arguments, "-o", "json")
        assert ended.code == code, ended.err
        found: list[dict[str, Any]] = ended.json
        return found

    def put(self, key: str, body: bytes = b"{}", **options: Any) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body, **options)

    @property
    def s3(self) -> Any:
        return self.cloud.client("s3")

    def sql(self, statement: str, **values: Any) -> list[Any]:
        with self.database.begin() as session:
            found = session.connection().execute(sa.text(statement), values)
            return list(found.all()) if found.returns_rows else []

    def run_of(self, name: str) -> tuple[int, int | None]:
        """Return the IDs of a run and its tree."""
        ((run, tree),) = self.sql(
            "SELECT r.workflow_id, t.entity_id FROM aspen.phylo_runs r LEFT JOIN aspen.entities e "
            "ON e.producing_workflow_id = r.workflow_id LEFT JOIN aspen.phylo_trees t "
            "ON t.entity_id = e.id WHERE r.name = :name",
            name=name,
        )
        return run, tree


@pytest.fixture
def lab(
    cloud: Cloud,
    postgres: Server,
    _roles_template: str,
    roles_objects: ObjectFolder,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[FilesLab]:
    """Yield a target whose bucket and rows agree."""
    from aspencli.cli.main import run

    bucket = f"files-{next(_numbers)}"
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for _bucket, key, body in roles_objects:
        s3.put_object(Bucket=bucket, Key=key, Body=body)
    secret = f"{bucket}/{CONFIG_NAME}"
    cloud.client("secretsmanager").create_secret(
        Name=secret, SecretString=json.dumps({"S3_db_bucket": bucket})
    )
    monkeypatch.chdir(tmp_path)

    def call(environment: Mapping[str, str], arguments: tuple[str, ...]) -> Ended:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        return ended(arguments, run(arguments), capsys)

    with postgres.cloned(_roles_template, writable=True) as database:
        environment = {
            "ASPEN_DATABASE_URL_LOCAL": database.url.render_as_string(hide_password=False),
            "ASPEN_SECRET_NAME_LOCAL": secret,
            "ASPEN_AWS_ENDPOINT_URL_LOCAL": cloud.address,
            "ASPEN_AWS_REGION_LOCAL": REGION,
            "AWS_ACCESS_KEY_ID": cloud.credentials.key,
            "AWS_SECRET_ACCESS_KEY": cloud.credentials.secret,
        }
        found = FilesLab(cloud, database, bucket, environment, call)
        for table in ("phylo_trees", "aligned_repository_data"):
            found.sql(f"UPDATE aspen.{table} SET s3_bucket = :bucket", bucket=bucket)
        yield found


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the operations that commands in this process ask AWS for."""
    from botocore.client import BaseClient

    seen: list[str] = []
    usual = BaseClient._make_request

    def make_request(self: Any, operation_model: Any, *rest: Any) -> Any:
        seen.append(operation_model.name)
        return usual(self, operation_model, *rest)

    monkeypatch.setattr(BaseClient, "_make_request", make_request)
    return seen


# List


def test_list_shows_files_with_rows_that_refer_to_them(lab: FilesLab) -> None:
    run, tree = lab.run_of("Redwood County, overview")
    lab.put(f"phylo_run/Redwood County/OVERVIEW/{run}/builds.yaml", b"builds: {}\n")
    lab.put("pangolin_lineages/2026-01-01_lineage_notes.txt")
    rows = {row["key"]: row for row in lab.rows("list")}
    found = rows[f"phylo_runs/{run}/tree.json"]
    assert (found["kind"], found["run"], found["tree"]) == ("tree", run, tree)
    assert found["row"] == f"phylo_trees {tree}"
    assert found["size"] > 1_000
    build = rows[f"phylo_run/Redwood County/OVERVIEW/{run}/builds.yaml"]
    assert (build["kind"], build["size"], build["row"]) == ("build", 11, f"phylo_runs {run}")
    assert (build["tree"], build["group"]) == (tree, found["group"])
    lineages = rows["pangolin_lineages/2026-01-01_lineage_notes.txt"]
    assert (lineages["kind"], lineages["row"]) == ("lineages", None)
    dumps = [row for row in rows.values() if row["kind"] == "aligned-dump"]
    assert len(dumps) == 6
    assert all(row["row"].startswith("aligned_repository_data ") for row in dumps)


def test_list_filters_by_run_tree_kind_and_group(lab: FilesLab) -> None:
    run, tree = lab.run_of("Redwood County, overview")
    other, _tree = lab.run_of("Bayside, overview")
    for name in ("builds.yaml", "include.txt", "logs/ncov/1.txt"):
        lab.put(f"phylo_run/Redwood County/OVERVIEW/{run}/{name}")
    kinds = ["build", "include", "log", "tree"]
    for option, value in (("--run", run), ("--tree", tree)):
        rows = lab.rows("list", option, str(value))
        assert sorted(row["kind"] for row in rows) == kinds
        assert {row["run"] for row in rows} == {run}
    rows = lab.rows("list", "--kind", "log", "--kind", "include")
    assert [row["kind"] for row in rows] == ["include", "log"]
    assert [row["run"] for row in lab.rows("list", "--group", "2")] == [other]
    assert lab.rows("list", "--run", str(run), "--group", "2") == []


def test_list_of_unknown_tree_or_group_is_refused(lab: FilesLab) -> None:
    assert lab("list", "--tree", "999999").code == 6
    assert lab("list", "--group", "nope").code == 6
    assert lab("list", "--kind", "nope").code == 2
    assert lab("list", "--run", "999999").out == "\t".join(LIST_KEYS) + "\n"


LIST_KEYS = ("key", "kind", "size", "modified", "run", "tree", "group", "row")


# Show


def test_show_describes_file_by_key_address_and_tree(lab: FilesLab) -> None:
    run, tree = lab.run_of("Redwood County, overview")
    key = f"phylo_runs/{run}/tree.json"
    (found,) = lab.rows("show", "--tree", str(tree))
    assert (found["key"], found["bucket"]) == (key, lab.bucket)
    assert found["row"] == f"phylo_trees {tree}"
    body = lab.s3.get_object(Bucket=lab.bucket, Key=key)["Body"].read()
    assert found["size"] == len(body)
    assert found["etag"] == hashlib.md5(body).hexdigest()
    assert found["checksum"].partition(":")[0] in {"md5", "crc32"}
    assert lab.rows("show", key) == lab.rows("show", f"s3://{lab.bucket}/{key}") == [found]


def test_show_of_missing_file_names_row_that_refers_to_it(lab: FilesLab) -> None:
    run, tree = lab.run_of("Redwood County, overview")
    lab.s3.delete_object(Bucket=lab.bucket, Key=f"phylo_runs/{run}/tree.json")
    ended = lab("show", "--tree", str(tree))
    assert (ended.code, ended.out) == (6, "")
    assert f"although phylo_trees {tree} refers to it" in ended.err
    assert "aspencli files check" in ended.err
    assert lab("show", "no/such/key").code == 6
    assert lab("show", "s3://no-such-bucket/key").code == 6


@pytest.mark.parametrize(
    "words", [(), ("key", "--tree", "1"), ("s3://",), ("s3:///key",), ("s3://bucket",), ("",)]
)
def test_file_that_is_not_named_is_refused(lab: FilesLab, words: tuple[str, ...]) -> None:
    for command in ("show", "download"):
        assert lab(command, *words).code == 2


# Download

CONTENT = os.urandom(3_000_000)


def parts_of(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.glob(f".{path.name}*"))


def test_download_saves_verified_file_and_keeps_existing_one(lab: FilesLab, tmp_path: Path) -> None:
    lab.put("phylo_run/X/OVERVIEW/1/include.txt", CONTENT)
    command = ("download", "phylo_run/X/OVERVIEW/1/include.txt")
    path = tmp_path / "include.txt"
    ended = lab(*command, "-O", ".")
    assert (ended.code, ended.out) == (0, "")
    assert f"Saved {path.name} (3,000,000 bytes)." in ended.err.replace(f"{tmp_path}/", "")
    assert "Verified: " in ended.err
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"mine")
    again = lab(*command, "-O", ".")
    assert (again.code, path.read_bytes()) == (7, b"mine")
    assert "--force" in again.err
    assert lab(*command, "-O", ".", "--force").code == 0
    assert path.read_bytes() == CONTENT
    assert parts_of(path) == []


def test_download_by_tree_equals_stored_file(lab: FilesLab, tmp_path: Path) -> None:
    run, tree = lab.run_of("Redwood County, overview")
    assert lab("download", "--tree", str(tree), "-O", "tree.json").code == 0
    stored = lab.s3.get_object(Bucket=lab.bucket, Key=f"phylo_runs/{run}/tree.json")["Body"].read()
    assert (tmp_path / "tree.json").read_bytes() == stored


@pytest.mark.parametrize("size", [0, 1, 262_144])
def test_file_of_any_size_is_downloaded(lab: FilesLab, tmp_path: Path, size: int) -> None:
    lab.put("some/file", CONTENT[:size])
    assert lab("download", "some/file", "-O", "x").code == 0
    assert (tmp_path / "x").read_bytes() == CONTENT[:size]


def test_download_to_stdout_is_verified(lab: FilesLab) -> None:
    lab.put("some/file", b"content\n")
    done = zygote.run(("files", "download", "some/file"), env={**os.environ, **lab.environment})
    assert (done.returncode, done.stdout) == (0, b"content\n"), done.stderr


@pytest.mark.parametrize("key", ["/", "a/..", "a/\x1b[31m", "."])
def test_name_of_saved_file_is_safe(lab: FilesLab, tmp_path: Path, key: str) -> None:
    lab.put(key, b"content")
    ended = lab("download", key, "-O", str(tmp_path))
    assert ended.code == 0, ended.err
    assert (tmp_path / "file").read_bytes() == b"content"


def test_file_in_several_parts_is_verified(lab: FilesLab, tmp_path: Path) -> None:
    body = CONTENT * 4  # 12 MB, of which the first part has to have 5 MB
    begun = lab.s3.create_multipart_upload(Bucket=lab.bucket, Key="parts")
    parts = []
    for number, start in enumerate(range(0, len(body), 5_242_880), 1):
        names = {"Bucket": lab.bucket, "Key": "parts", "UploadId": begun["UploadId"]}
        piece = body[start : start + 5_242_880]
        answer = lab.s3.upload_part(**names, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    lab.s3.complete_multipart_upload(**names, MultipartUpload={"Parts": parts})
    ended = lab("download", "parts", "-O", "x")
    assert ended.code == 0, ended.err
    assert (tmp_path / "x").read_bytes() == body


def test_sha256_is_preferred(lab: FilesLab, tmp_path: Path) -> None:
    lab.put("some/file", CONTENT, ChecksumAlgorithm="SHA256")
    ended = lab("download", "some/file", "-O", "x")
    assert f"Verified: sha256:{hashlib.sha256(CONTENT).hexdigest()}" in ended.err


class Wire:
    """A way to AWS on which the bodies of large files can break off or be changed.

    The emulator accepts only requests that are signed for its own address, so moto itself answers.

    Attributes:
        cuts: The bytes of a body after which the connection is closed, for each answer in turn;
            later answers are complete.
        ranges: The ranges that were requested.
        is_damaging: True to change the last byte of bodies.
    """

    def __init__(self, service: str):
        self.cuts: list[int] = []
        self.ranges: list[str | None] = []
        self.is_damaging = False
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                wire.pass_on(self, service)

            do_HEAD = do_POST = do_GET  # noqa: N815 - the names are http.server's

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def pass_on(self, handler: BaseHTTPRequestHandler, service: str) -> None:
        content = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        with httpx.Client(trust_env=False, timeout=60) as client:
            answer = client.request(
                handler.command,
                service + handler.path,
                content=content,
                headers={**handler.headers, "Accept-Encoding": "identity"},
            )
        body = answer.content
        is_file = handler.command == "GET" and len(body) > 100_000
        cut = self.cuts.pop(0) if is_file and self.cuts else None
        if is_file:
            self.ranges.append(handler.headers.get("Range"))
        if is_file and self.is_damaging:
            body = body[:-1] + bytes([body[-1] ^ 1])
        handler.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in {"transfer-encoding", "connection", "date", "server"}:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:cut])
        handler.close_connection = cut is not None

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def _moto() -> Iterator[str]:
    with running_moto() as address:
        yield address


@dataclass
class FragileLab:
    """A file behind a `Wire`."""

    wire: Wire
    s3: Any
    call: Callable[..., Ended]
    path: Path

    def __call__(self, *more: str) -> Ended:
        return self.call("download", KEY, "-O", str(self.path), *more)

    def put(self, body: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=KEY, Body=body)

    @property
    def part(self) -> bytes:
        return self.path.with_name(f".{self.path.name}.part").read_bytes()


KEY = "phylo_run/X/OVERVIEW/1/ncov_aspen.json"
BROKEN = (1_000_000, 0, 0, 0, 0)
"""The cuts after which a run gives up."""


@pytest.fixture
def fragile(
    lab: FilesLab, _moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[FragileLab]:
    monkeypatch.setattr("aspencli.storage.bucket._PAUSE_S", 0.0)
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": REGION}
    s3 = boto3.client("s3", endpoint_url=_moto, **keys)
    secrets = boto3.client("secretsmanager", endpoint_url=_moto, **keys)
    # Other tests of this process use the same server, perhaps with the same names.
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    with suppress(secrets.exceptions.ResourceExistsException):
        secrets.create_secret(Name=CONFIG_NAME, SecretString="{}")
    secrets.put_secret_value(
        SecretId=CONFIG_NAME, SecretString=json.dumps({"S3_db_bucket": BUCKET})
    )
    wire = Wire(_moto)
    env = {"ASPEN_AWS_ENDPOINT_URL_LOCAL": wire.url, "ASPEN_SECRET_NAME_LOCAL": CONFIG_NAME}
    found = FragileLab(wire, s3, partial(lab, **env), tmp_path / "tree.json")
    found.put(CONTENT)
    yield found
    wire.close()


def test_interrupted_download_continues_by_itself(fragile: FragileLab) -> None:
    fragile.wire.cuts = [1_000_000, 500_000, 1]
    ended = fragile()
    assert ended.code == 0, ended.err
    assert fragile.path.read_bytes() == CONTENT
    assert parts_of(fragile.path) == []
    first, *rest = fragile.wire.ranges
    assert first is None
    assert len(rest) == 3
    starts = [int(str(each).removeprefix("bytes=").removesuffix("-")) for each in rest]
    assert starts == sorted(starts)
    assert 0 < starts[0] <= 1_000_000


def test_next_run_continues_partial_file(fragile: FragileLab) -> None:
    fragile.wire.cuts = list(BROKEN)
    ended = fragile()
    assert (ended.code, ended.out) == (5, "")
    assert "was interrupted" in ended.err
    assert "it continues where this one stopped" in ended.err
    assert not fragile.path.exists()
    kept = fragile.part
    assert 0 < len(kept) <= 1_000_000
    assert CONTENT.startswith(kept)
    fragile.wire.cuts, fragile.wire.ranges = [], []
    assert fragile().code == 0
    assert fragile.wire.ranges == [f"bytes={len(kept)}-"]
    assert fragile.path.read_bytes() == CONTENT
    assert parts_of(fragile.path) == []


def test_partial_file_of_replaced_object_is_not_continued(fragile: FragileLab) -> None:
    fragile.wire.cuts = list(BROKEN)
    assert fragile().code == 5
    new = os.urandom(2_000_000)
    fragile.put(new)
    fragile.wire.cuts, fragile.wire.ranges = [], []
    assert fragile().code == 0
    assert fragile.wire.ranges == [None]
    assert fragile.path.read_bytes() == new


def test_complete_partial_file_is_verified_and_saved(fragile: FragileLab) -> None:
    fragile.wire.cuts = list(BROKEN)
    assert fragile().code == 5
    part = fragile.path.with_name(f".{fragile.path.name}.part")
    part.write_bytes(CONTENT)
    fragile.wire.cuts, fragile.wire.ranges = [], []
    assert fragile().code == 0
    assert fragile.wire.ranges == []
    assert fragile.path.read_bytes() == CONTENT


def test_damaged_download_is_discarded(fragile: FragileLab) -> None:
    fragile.wire.is_damaging = True
    ended = fragile()
    assert (ended.code, ended.out) == (5, "")
    assert "do not match the file's" in ended.err
    assert not fragile.path.exists()
    assert parts_of(fragile.path) == []
    fragile.path.write_bytes(b"mine")
    assert fragile("--force").code == 5
    assert fragile.path.read_bytes() == b"mine"


def test_damaged_partial_file_is_discarded(fragile: FragileLab) -> None:
    fragile.wire.cuts = list(BROKEN)
    assert fragile().code == 5
    part = fragile.path.with_name(f".{fragile.path.name}.part")
    part.write_bytes(b"?" * part.stat().st_size)
    fragile.wire.cuts = []
    ended = fragile()
    assert ended.code == 5
    assert parts_of(fragile.path) == []
    assert fragile().code == 0
    assert fragile.path.read_bytes() == CONTENT


# Check


def test_check_finds_no_difference(lab: FilesLab) -> None:
    ended = lab("check", "--min-age", "0s", "-o", "json")
    assert (ended.code, ended.json) == (0, []), ended.err
    assert "No differences." in ended.err


def test_check_finds_differences_in_both_directions(lab: FilesLab) -> None:
    run, tree = lab.run_of("Redwood County, overview")
    failed, _tree = lab.run_of("Travelers, first try")
    started, _tree = lab.run_of("Travelers")
    dump = "aligned_repository_data/SC2/gisaid/metadata.tsv"
    for key in (f"phylo_runs/{run}/tree.json", dump):
        lab.s3.delete_object(Bucket=lab.bucket, Key=key)
    lab.sql("UPDATE aspen.phylo_trees SET s3_bucket = 'gone' WHERE s3_key LIKE '%/2/tree.json'")
    second = lab.sql("SELECT entity_id FROM aspen.phylo_trees WHERE s3_bucket = 'gone'")
    orphans = {
        "phylo_run/X/OVERVIEW/999999/ncov_aspen.json": "tree",  # of a deleted run
        "phylo_run/X/OVERVIEW/999999/builds.yaml": "build",
        "phylo_run/X/OVERVIEW/999999/logs/ncov/1.txt": "log",
        TREE_KEY.format(failed): "tree",  # its run has no tree
        "raw_genbank_dump/20260101-0100/genbank.ndjson.zst": "raw-dump",
    }
    fine = (
        f"phylo_run/X/OVERVIEW/{failed}/logs/ncov/1.txt",
        f"phylo_run/X/OVERVIEW/{run}/builds.yaml",
        TREE_KEY.format(started),  # its run has not ended
        "aspencli/audit/local/999999999998.json",
        "pangolin_lineages/2026-01-01_lineage_notes.txt",
        "something/else",
    )
    for key in (*orphans, *fine):
        lab.put(key)
    rows = lab.rows("check", "--min-age", "0s", code=ConflictError.exit_code)
    missing = {(row["key"], row["row"]) for row in rows if row["problem"] == "no-object"}
    assert (f"phylo_runs/{run}/tree.json", f"phylo_trees {tree}") in missing
    assert {row["key"] for row in rows if row["problem"] == "no-row"} >= orphans.keys()
    kinds = {row["key"]: row["kind"] for row in rows if row["problem"] == "no-row"}
    # The object of the tree that was moved to another bucket has no row any more.
    assert {key: kinds[key] for key in orphans} == orphans
    assert len(kinds) == len(orphans) + len(second)
    assert len(missing) == 2 + len(second)
    assert not kinds.keys() & set(fine)
    words = {row["bucket"] for row in rows}
    assert words == {lab.bucket, *(["gone"] if second else [])}
    only = lab.rows("check", "--min-age", "0s", "--kind", "raw-dump", code=7)
    assert [row["key"] for row in only] == ["raw_genbank_dump/20260101-0100/genbank.ndjson.zst"]


def test_young_files_without_row_are_not_reported(lab: FilesLab) -> None:
    lab.put("phylo_run/X/OVERVIEW/999999/ncov_aspen.json")
    ended = lab("check", "-o", "json")
    assert (ended.code, ended.json) == (0, [])
    assert "Not reported: 1 file without a row, changed within the last 1 h 00 min." in ended.err
    assert lab("check", "--min-age", "soon").code == 2


def test_requests_grow_with_pages(lab: FilesLab, requests: list[str]) -> None:
    lab.cloud.client("secretsmanager").put_secret_value(
        SecretId=lab.environment["ASPEN_SECRET_NAME_LOCAL"],
        SecretString=json.dumps({"S3_db_bucket": LARGE}),
    )
    lab.sql("DELETE FROM aspen.aligned_repository_data")
    lab.sql("DELETE FROM aspen.phylo_tree_samples")
    lab.sql("DELETE FROM aspen.phylo_trees")
    lab.sql(
        "INSERT INTO aspen.entities (id, entity_type, group_id) "
        "SELECT 1000000 + n, 'PHYLO_TREE', 1 FROM generate_series(1, :many) n",
        many=MANY,
    )
    lab.sql(
        "INSERT INTO aspen.phylo_trees (entity_id, s3_bucket, s3_key, tree_type, pathogen_id, "
        "contextual_repository_id) SELECT 1000000 + n, :bucket, 'phylo_run/Redwood County/"
        "OVERVIEW/' || 1000000 + n || '/ncov_aspen.json', 'OVERVIEW', 1, 1 "
        "FROM generate_series(1, :many) n",
        many=MANY,
        bucket=LARGE,
    )
    requests.clear()
    rows = lab.rows("check", "--min-age", "0s", code=7)
    assert requests.count("ListObjectsV2") == MANY / 1_000
    assert len(requests) == MANY / 1_000 + 1  # and the secret
    found = dict.fromkeys(("no-object", "no-row"), 0)
    for row in rows:
        found[row["problem"]] += 1
    assert found == {"no-object": 10, "no-row": 10}
    requests.clear()
    assert len(lab.rows("list")) == MANY
    assert len(requests) == MANY / 1_000 + 1
    requests.clear()
    assert len(lab.rows("list", "--limit", "10")) == 10
    assert len(requests) == 2


# Failures


def test_bucket_that_is_not_configured_is_reported(lab: FilesLab) -> None:
    ended = lab("list", ASPEN_SECRET_NAME_LOCAL="")
    assert (ended.code, ended.out) == (2, "")
    assert "No bucket is known for local" in ended.err
    assert lab("list", ASPEN_SECRET_NAME_LOCAL="no-such-secret").code == 6


def test_wrong_credentials_and_unreachable_aws_are_reported(lab: FilesLab) -> None:
    ended = lab("list", AWS_SECRET_ACCESS_KEY="wrong")
    assert (ended.code, ended.out) == (4, "")
    away = lab("list", ASPEN_AWS_ENDPOINT_URL_LOCAL="http://127.0.0.1:9")
    assert (away.code, away.out) == (5, "")
    assert "AWS does not answer" in away.err


def test_emulator_has_the_names_that_commands_expect() -> None:
    from aspen.local.aws import content

    assert (emulator._SECRET, emulator._REGION) == (content.CONFIG_NAME, content.REGION)
    assert emulator._PROFILE == content._PROFILE
