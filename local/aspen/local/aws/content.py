"""The content of the AWS emulator: secrets, parameters, buckets, jobs, and S3 objects.

Names are those of the live service, for the parts that can run on one machine. Objects are files in
a folder, which the running emulator and later starts serve.
"""

from __future__ import annotations

import base64
import configparser
import datetime as dt
import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from aspen.api.aws import AccessKey, make_client
from aspen.local.processes import HOST
from aspen.local.services import CLIENT_ID, MANAGEMENT_CLIENT_ID
from aspencli.errors import AspenError
from aspencli.files import make_folder, write_whole

REGION = "us-west-2"
ACCOUNT = "123456789012"
STAGE = "local"
CONFIG_NAME = "genepi-config"
AUSPICE_BUCKET, DB_BUCKET = "genepi-external-auspice-data", "genepi-db-data"
BUCKETS = (AUSPICE_BUCKET, DB_BUCKET, "genepi-gisaid-data", "genepi-batch")
JOBS = (
    "nextstrain-ondemand-sfn",
    "pangolin-ondemand-sfn",
    "lineage-qc-ondemand-sfn",
    "nextstrain-sfn",
)
"""The service's jobs, each with a parameter and a state machine. It starts three of them."""

OBJECTS = "s3"
"""The name of that folder, inside the emulator's folder."""
EARLIER = "objects"
"""The folder in which earlier versions stored files, by bucket and key."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
_MADE = "made.json"
_CONTENT = "content.json"
_CREDENTIALS = "credentials"
_PROFILE = "default"


@dataclass(frozen=True)
class Content:
    """The content of the emulator at each start.

    Attributes:
        secrets: The content of each Secrets Manager secret, by name.
        parameters: The value of each Parameter Store parameter, by path.
        machines: The names of the Step Functions state machines.
    """

    secrets: Mapping[str, Mapping[str, Any]]
    parameters: Mapping[str, Mapping[str, Any]]
    machines: tuple[str, ...] = JOBS
    buckets: tuple[str, ...] = BUCKETS

    def write(self, folder: Path) -> None:
        """Write the content where the emulator reads it, readable only by its owner."""
        write_whole(folder / _CONTENT, json.dumps(asdict(self), indent=2))


@dataclass(frozen=True)
class Surroundings:
    """The other parts of the deployment, as the secret describes them.

    Attributes:
        database: The address of PostgreSQL, ``host:port``.
        username: The role that owns the schema; it can migrate the schema but is not a superuser.
        issuer: The URL of the identity provider, without a trailing slash.
    """

    database: str
    username: str
    password: str
    issuer: str


def standard_content(folder: Path, around: Surroundings) -> Content:
    """Return the content of a deployment; generated secrets are stored in ``folder`` and reused."""
    return Content(
        secrets={CONFIG_NAME: _config(made_values(folder), around)},
        parameters={parameter(name): job_parameter(name) for name in JOBS},
    )


def read_content(folder: Path) -> Content:
    """Return the content stored in a folder.

    Raises:
        AspenError: The content is missing or damaged.
    """
    try:
        kept = json.loads((folder / _CONTENT).read_text())
        kept["machines"], kept["buckets"] = tuple(kept["machines"]), tuple(kept["buckets"])
        return Content(**kept)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AspenError(
            f"Cannot read the AWS emulator's content from {folder / _CONTENT}: {error}",
            hint="Restart the deployment: aspencli local down, then aspencli local up",
        ) from error


def parameter(name: str) -> str:
    """Return the path of one of this deployment's parameters."""
    return f"/genepi/{STAGE}/{STAGE}stack/{name}"


def machine_arn(name: str) -> str:
    """Return the ARN of a state machine."""
    return f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}"


def made_values(folder: Path) -> dict[str, str]:
    """Return the secrets generated for this deployment; they are created once, then reused."""
    path = folder / _MADE
    try:
        kept: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        kept = {}
    except ValueError as error:
        raise AspenError(
            f"Damaged file: {path}", hint="Delete the file; its secrets are generated again."
        ) from error
    made = {
        "FLASK_SECRET": secrets.token_urlsafe(32),
        "AUSPICE_MAC_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AUTH0_CLIENT_SECRET": secrets.token_urlsafe(32),
        "AUTH0_MANAGEMENT_CLIENT_SECRET": secrets.token_urlsafe(32),
    } | kept
    if made != kept:
        make_folder(folder)
        write_whole(path, json.dumps(made, indent=2))
    return made


def credentials_file(folder: Path) -> Path:
    """Return the file with the emulator's access key, in the format of AWS's own tools."""
    return folder / _CREDENTIALS


def new_credentials(folder: Path, port: int) -> AccessKey:
    """Create an access key, and write it to a file that only the owner can read.

    AWS's own tools read the file if ``AWS_SHARED_CREDENTIALS_FILE`` and ``AWS_CONFIG_FILE`` point
    to it; it also contains the emulator's URL.
    """
    made = AccessKey(f"LOCAL{secrets.token_hex(8).upper()}", secrets.token_urlsafe(30))
    text = (
        f"[{_PROFILE}]\naws_access_key_id = {made.key}\naws_secret_access_key = {made.secret}\n"
        f"region = {REGION}\nendpoint_url = http://{HOST}:{port}\n\n"
    )
    make_folder(folder)
    write_whole(credentials_file(folder), text)
    return made


def read_credentials(folder: Path) -> AccessKey:
    """Return the access key that was created last.

    Raises:
        AspenError: The access key cannot be read.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(credentials_file(folder).read_text())
        kept = parser[_PROFILE]
        return AccessKey(kept["aws_access_key_id"], kept["aws_secret_access_key"])
    except (OSError, KeyError, configparser.Error) as error:
        raise AspenError(
            f"Cannot read the AWS emulator's credentials: {credentials_file(folder)}",
            hint="Restart the deployment: aspencli local down, then aspencli local up",
        ) from error


def _config(made: Mapping[str, str], around: Surroundings) -> dict[str, Any]:
    issuer = around.issuer
    return {
        **made,
        "DB_address": around.database,
        # Never the superuser, which can run programs with the operator's account.
        "DB_admin_username": around.username,
        "DB_admin_password": around.password,
        "DB_rw_username": around.username,
        "DB_rw_password": around.password,
        "S3_external_auspice_bucket": AUSPICE_BUCKET,
        "S3_db_bucket": DB_BUCKET,
        "AUTH0_CLIENT_ID": CLIENT_ID,
        "AUTH0_DOMAIN": issuer,
        "AUTH0_BASE_URL": issuer,
        "AUTH0_ACCESS_TOKEN_URL": f"{issuer}/oauth/token",
        "AUTH0_AUTHORIZE_URL": f"{issuer}/authorize",
        "AUTH0_USERINFO_URL": f"{issuer}/userinfo",
        "AUTH0_SERVER_METADATA_URL": f"{issuer}/.well-known/openid-configuration",
        "AUTH0_CLIENT_KWARGS": {"scope": "openid profile email"},
        "AUTH0_MANAGEMENT_DOMAIN": issuer,
        "AUTH0_MANAGEMENT_CLIENT_ID": MANAGEMENT_CLIENT_ID,
    }


def job_parameter(name: str) -> dict[str, Any]:
    """Return the value of a job's parameter."""
    workflow = name.removesuffix("-sfn").removesuffix("-ondemand")
    return {
        "Input": {
            "Run": {
                "genepi_config_secret_name": CONFIG_NAME,
                "aws_region": REGION,
                "docker_image_id": f"genepi-{workflow}:local",
                "remote_dev_prefix": "",
            }
        },
        "OutputPrefix": f"s3://genepi-batch/{name}/results",
        "RUN_WDL_URI": f"s3://genepi-batch/{name}/{workflow}.wdl",
        "RunEC2Memory": 64000,
        "RunEC2Vcpu": 10,
        "RunSPOTMemory": 64000,
        "RunSPOTVcpu": 10,
        "StateMachineArn": machine_arn(name),
    }


class StoredFile(NamedTuple):
    """An object in the folder.

    Attributes:
        metadata: Its headers, and the metadata of its own.
        modified: The time of its last change.
    """

    bucket: str
    key: str
    body: bytes
    metadata: Mapping[str, str]
    modified: dt.datetime


class ObjectFolder:
    """Objects by bucket and key, in a folder that outlives the emulator.

    A key can be any text, unlike a file name, so each file is named by a hash of its key. Its first
    line is JSON with the key and the metadata; the rest is the object itself.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def has(self, bucket: str, key: str) -> bool:
        """Return True if the object exists."""
        return self._path(bucket, key).is_file()

    def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None = None,
        modified: dt.datetime | None = None,
    ) -> None:
        """Write an object atomically; by default, it was changed now."""
        self.make_bucket(bucket)
        seconds = None if modified is None else modified.timestamp()
        head = json.dumps({"key": key, "metadata": dict(metadata or {}), "modified": seconds})
        write_whole(self._path(bucket, key), head.encode() + b"\n" + body)

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object."""
        self._path(bucket, key).unlink(missing_ok=True)

    def make_bucket(self, bucket: str) -> None:
        """Create a bucket if it does not exist."""
        make_folder(self._place(bucket))

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket and everything in it."""
        shutil.rmtree(self._place(bucket), ignore_errors=True)

    def buckets(self) -> list[str]:
        """Return the names of the buckets, including empty ones."""
        return sorted(one.name for one in self._folder.glob("*") if _BUCKET.fullmatch(one.name))

    def stored(self) -> Iterator[StoredFile]:
        """Yield every object."""
        for bucket in self.buckets():
            for path in sorted(self._place(bucket).glob("[0-9a-f]*")):
                head, _, body = path.read_bytes().partition(b"\n")
                about = json.loads(head)
                # The last change of the file is that of the object, if nothing else is known.
                seconds = about.get("modified") or path.stat().st_mtime
                modified = dt.datetime.fromtimestamp(seconds, dt.UTC)
                yield StoredFile(bucket, about["key"], body, about["metadata"], modified)

    def __iter__(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield the bucket, key, and content of every object."""
        for one in self.stored():
            yield one.bucket, one.key, one.body

    def adopt(self, earlier: Path) -> None:
        """Import the files that an earlier version stored, then delete their folder."""
        for path in sorted(earlier.glob("*/**/*")):
            bucket, *parts = path.relative_to(earlier).parts
            key = "/".join(parts)
            if path.is_file() and not path.is_symlink() and not self.has(bucket, key):
                self.put(bucket, key, path.read_bytes())
        shutil.rmtree(earlier, ignore_errors=True)

    def _place(self, bucket: str) -> Path:
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"Invalid bucket name: {bucket!r}")
        return self._folder / bucket

    def _path(self, bucket: str, key: str) -> Path:
        return self._place(bucket) / hashlib.sha256(key.encode()).hexdigest()


def publish(address: str, access: AccessKey, objects: Iterable[tuple[str, str, bytes]]) -> None:
    """Upload the objects that a running emulator does not have yet."""
    s3 = make_client("s3", REGION, address, access)
    there = dict[str, set[str]]()
    for bucket, key, body in objects:
        if bucket not in there:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            there[bucket] = {row["Key"] for page in pages for row in page.get("Contents", ())}
        if key not in there[bucket]:
            s3.put_object(Bucket=bucket, Key=key, Body=body)
