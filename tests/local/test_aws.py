"""The AWS emulator, as boto3 sees it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as Keys
from botocore.exceptions import ClientError

from aspen.api.aws import AccessKey
from aspen.local.aws.content import (
    BUCKETS,
    EARLIER,
    JOBS,
    OBJECTS,
    REGION,
    Content,
    ObjectFolder,
    Surroundings,
    made_values,
    new_credentials,
    parameter,
    read_content,
    read_credentials,
    standard_content,
)
from aspen.local.aws.gate import HEALTH
from aspen.local.processes import HOST, free_port
from aspencli.errors import AspenError
from tests import zygote

AROUND = Surroundings(
    database="127.0.0.1:5432",
    username="user_rw",
    password="w",
    issuer="http://127.0.0.1:3031",
)
TREE = ("genepi-db-data", "phylo_runs/1/tree.json", b'{"version": "v2"}')


@dataclass
class StandIn:
    """A running stand-in."""

    folder: Path
    address: str
    process: subprocess.Popen[bytes]

    @property
    def credentials(self) -> AccessKey:
        return read_credentials(self.folder)

    def client(self, service: str, **changes: Any) -> Any:
        return boto3.client(
            service,
            **{
                "endpoint_url": self.address,
                "region_name": REGION,
                "aws_access_key_id": self.credentials.key,
                "aws_secret_access_key": self.credentials.secret,
                # By default, boto3 presigns in a way that newer regions refuse.
                "config": Config(signature_version="s3v4" if service == "s3" else None),
                **changes,
            },
        )


@contextmanager
def running(folder: Path) -> Iterator[StandIn]:
    port = free_port(hash(folder))
    new_credentials(folder, port)
    words = ["--port", str(port), "--folder", str(folder)]
    with zygote.start(words, module="aspen.local.aws", stderr=subprocess.DEVNULL) as process:
        address = f"http://{HOST}:{port}"
        while not answers(address):
            assert process.poll() is None
            time.sleep(0.02)
        try:
            yield StandIn(folder, address, process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    folder = tmp_path_factory.mktemp("aws")
    standard_content(folder, AROUND).write(folder)
    ObjectFolder(folder / OBJECTS).put(*TREE)
    with running(folder) as stand_in:
        yield stand_in
        stand_in.process.send_signal(signal.SIGTERM)
        assert stand_in.process.wait(120) == 0


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}{HEALTH}", timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_emulator_secret_has_service_configuration(stand_in: StandIn) -> None:
    found = stand_in.client("secretsmanager").get_secret_value(SecretId="genepi-config")
    config = json.loads(found["SecretString"])
    assert config["DB_address"] == "127.0.0.1:5432"
    assert (config["DB_rw_username"], config["DB_rw_password"]) == ("user_rw", "w")
    assert config["AUTH0_DOMAIN"] == "http://127.0.0.1:3031"
    assert config["AUTH0_CLIENT_ID"] == "aspencli-local"
    assert config["S3_db_bucket"] in BUCKETS
    assert len(config["FLASK_SECRET"]) >= 32
    assert all(config.values())  # the service treats an empty value as missing


def test_each_job_has_parameter_and_can_be_started(stand_in: StandIn) -> None:
    for job in JOBS:
        name = f"/genepi/local/localstack/{job}"
        assert name == parameter(job)
        found = stand_in.client("ssm").get_parameter(Name=name)
        told = json.loads(found["Parameter"]["Value"])
        assert told["Input"]["Run"]["genepi_config_secret_name"] == "genepi-config"
        functions = stand_in.client("stepfunctions")
        started = functions.start_execution(
            stateMachineArn=told["StateMachineArn"], name=f"run-{job}", input="{}"
        )
        told = functions.describe_execution(executionArn=started["executionArn"])
        assert told["status"] in {"RUNNING", "SUCCEEDED"}


def test_emulator_buckets_contain_stored_objects(stand_in: StandIn) -> None:
    s3 = stand_in.client("s3")
    assert {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]} == set(BUCKETS)
    bucket, key, body = TREE
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body


def test_presigned_url_can_be_fetched_without_credentials(stand_in: StandIn) -> None:
    s3 = stand_in.client("s3")
    s3.put_object(Bucket=BUCKETS[0], Key="a b/ü.fasta", Body=b">a\nACGT\n")
    where = {"Bucket": BUCKETS[0], "Key": "a b/ü.fasta"}
    address = s3.generate_presigned_url("get_object", Params=where, ExpiresIn=60)
    with urllib.request.urlopen(address, timeout=60) as answer:
        assert answer.read() == b">a\nACGT\n"


def test_generated_values_persist_and_are_readable_by_owner_only(tmp_path: Path) -> None:
    made = made_values(tmp_path)
    assert made_values(tmp_path) == made
    content = standard_content(tmp_path, AROUND)
    content.write(tmp_path)
    assert read_content(tmp_path) == content
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert made_values(tmp_path / "another") != made


@pytest.mark.parametrize("text", [None, "{", "[]", '{"secrets": {}}'])
def test_damaged_emulator_content_is_reported(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "content.json").write_text(text)
    with pytest.raises(AspenError, match="Cannot read the AWS emulator"):
        read_content(tmp_path)
    words = ["--port", "1", "--folder", str(tmp_path)]
    done = zygote.run_text(words, module="aspen.local.aws", env=os.environ)
    assert done.returncode == 1
    assert "Cannot read the AWS emulator" in done.stderr
    assert "Traceback" not in done.stderr


def test_custom_emulator_content_round_trips(tmp_path: Path) -> None:
    own = Content(secrets={"s": {"a": "b"}}, parameters={}, machines=(), buckets=("one",))
    own.write(tmp_path)
    assert read_content(tmp_path) == own


# Access


def test_emulator_secret_does_not_contain_superuser(stand_in: StandIn) -> None:
    found = stand_in.client("secretsmanager").get_secret_value(SecretId="genepi-config")
    config = json.loads(found["SecretString"])
    assert (config["DB_admin_username"], config["DB_admin_password"]) == ("user_rw", "w")
    assert "postgres" not in config.values()


WRONG_KEYS = {
    "another key": {"aws_access_key_id": "local", "aws_secret_access_key": "local"},
    "another secret": {"aws_secret_access_key": "local"},
}


@pytest.mark.parametrize("changes", WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_wrong_access_key_is_refused(stand_in: StandIn, changes: dict[str, str]) -> None:
    asked: list[tuple[str, str, dict[str, str]]] = [
        ("secretsmanager", "get_secret_value", {"SecretId": "genepi-config"}),
        ("ssm", "get_parameter", {"Name": parameter(JOBS[0])}),
        ("s3", "get_object", {"Bucket": TREE[0], "Key": TREE[1]}),
        ("stepfunctions", "list_state_machines", {}),
    ]
    for service, method, arguments in asked:
        with pytest.raises(ClientError) as refused:
            getattr(stand_in.client(service, **changes), method)(**arguments)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


SECRET = '{"SecretId": "genepi-config"}'
SECRET_HEADERS = {
    "X-Amz-Target": "secretsmanager.GetSecretValue",
    "Content-Type": "application/x-amz-json-1.1",
}
FORGED = (
    "AWS4-HMAC-SHA256 Credential=local/20260101/us-west-2/secretsmanager/aws4_request, "
    f"SignedHeaders=host;x-amz-date, Signature={'0' * 64}"
)
UNSIGNED: list[tuple[str, str, dict[str, str]]] = [
    ("POST", "/moto-api/reset", {}),
    ("GET", "/moto-api/", {}),
    ("GET", "/moto-api/data.json", {}),
    ("POST", "/moto-api/seed?a=1", {}),
    ("GET", "/", {}),
    ("GET", "/genepi-db-data", {}),
    ("GET", f"/{TREE[0]}/{TREE[1]}", {}),
    ("PUT", "/genepi-db-data/new", {}),
    ("DELETE", f"/{TREE[0]}/{TREE[1]}", {}),
    ("OPTIONS", "/", {}),
    ("GET", "/latest/meta-data/iam/security-credentials/", {}),
    ("GET", "/latest/api/token", {}),
    ("POST", "/", SECRET_HEADERS),
    ("POST", "/", {**SECRET_HEADERS, "Authorization": FORGED}),
    ("POST", "/", {**SECRET_HEADERS, "Authorization": "Basic bG9jYWw6bG9jYWw="}),
    ("POST", "/", {**SECRET_HEADERS, "Authorization": "AWS local:AAAAAAAAAAAAAAAAAAAAAAAAAAA="}),
    ("POST", "/secretsmanager_us-west-2/", SECRET_HEADERS),
    ("POST", "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/s3/aws4_request", {}),
]


@pytest.mark.parametrize(("method", "path", "headers"), UNSIGNED)
def test_unsigned_request_to_emulator_is_refused(
    stand_in: StandIn, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = httpx.request(
        method, f"{stand_in.address}{path}", headers=headers, content=SECRET, trust_env=False
    )
    assert answer.status_code == 403
    assert "PASSWORD" not in answer.text.upper()
    s3 = stand_in.client("s3")
    assert s3.get_object(Bucket=TREE[0], Key=TREE[1])["Body"].read() == TREE[2]


def signed(
    stand_in: StandIn,
    *,
    body: str = SECRET,
    host: str | None = None,
    headers: dict[str, str] | None = None,
    sent: str | None = None,
    service: str = "secretsmanager",
) -> httpx.Response:
    """Sign a request, replace its headers and body as given, and send it."""
    wanted = {**SECRET_HEADERS, **({"Host": host} if host else {})}
    request = AWSRequest("POST", f"{stand_in.address}/", wanted, body)
    keys = stand_in.credentials
    SigV4Auth(Keys(keys.key, keys.secret), service, REGION).add_auth(request)
    return httpx.post(
        request.url,
        headers={**dict(request.headers.items()), **(headers or {})},
        content=body if sent is None else sent,
        trust_env=False,
    )


def test_emulator_refuses_unknown_host_header(stand_in: StandIn) -> None:
    port = stand_in.address.rpartition(":")[2]
    assert signed(stand_in).status_code == 200
    assert signed(stand_in, host=f"localhost:{port}").status_code == 200
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.nip.io:{port}", "127.0.0.1"):
        refused = signed(stand_in, host=host)
        assert refused.status_code == 403, host
        assert "PASSWORD" not in refused.text.upper()
        health = httpx.get(f"{stand_in.address}{HEALTH}", headers={"Host": host}, trust_env=False)
        assert health.status_code == 403, host


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:3000", "null"])
def test_emulator_refuses_requests_from_web_pages(stand_in: StandIn, origin: str) -> None:
    refused = signed(stand_in, headers={"Origin": origin})
    assert refused.status_code == 403
    asked = httpx.options(
        stand_in.address,
        headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
        trust_env=False,
    )
    assert asked.status_code == 403
    allowed = signed(stand_in)
    for answer in (refused, asked, allowed):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_signature_is_valid_only_for_signed_request(stand_in: StandIn) -> None:
    assert signed(stand_in, sent='{"SecretId": "genepi-confih"}').status_code == 403
    assert signed(stand_in, headers={"X-Amz-Date": "20200101T000000Z"}).status_code == 403
    assert signed(stand_in, service="iam").status_code == 403  # a service that it does not emulate
    s3 = stand_in.client("s3")
    address = s3.generate_presigned_url("get_object", {"Bucket": TREE[0], "Key": TREE[1]})
    assert httpx.get(address, trust_env=False).content == TREE[2]
    assert httpx.put(address, content=b"x", trust_env=False).status_code == 403
    assert httpx.get(address.replace("tree.json", "two.json")).status_code == 403
    assert httpx.get(address.replace("Expires=3600", "Expires=7200")).status_code == 403


def test_access_key_is_new_at_each_start_and_readable_by_aws_tools(
    stand_in: StandIn, tmp_path: Path
) -> None:
    first, second = new_credentials(tmp_path, 1), new_credentials(tmp_path, 1)
    assert first != second
    assert read_credentials(tmp_path) == second
    kept = stand_in.folder / "credentials"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    script = (
        "import boto3; print(boto3.client('s3').list_buckets()['Buckets'][0]['Name']);"
        "print(boto3.client('ssm').get_parameters_by_path(Path='/', Recursive=True)['Parameters']"
        "[0]['Name'])"
    )
    files = dict.fromkeys(("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"), str(kept))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **files},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[0] == sorted(BUCKETS)[0]


# Storage

KEYS = [
    "a",
    "a/b",
    "a//b/",
    "../../up",
    "ü b.fasta",
    ".hidden",
    "k" * 1024,
    "%2e%2e/x",
    "x?y&z=1",
    "a+b c",
]


def test_stored_objects_survive_killed_emulator(tmp_path: Path) -> None:
    home = tmp_path / "outer" / "home"  # a key that escapes still ends up in this test's folder
    home.mkdir(parents=True)
    standard_content(home, AROUND).write(home)
    ObjectFolder(home / OBJECTS).put(*TREE)
    bucket = BUCKETS[0]
    with running(home) as stand_in:
        s3 = stand_in.client("s3")
        for number, key in enumerate(KEYS):
            s3.put_object(
                Bucket=bucket,
                Key=key,
                Body=str(number).encode(),
                ContentType="text/plain",
                Metadata={"n": str(number)},
            )
        s3.create_bucket(
            Bucket="of-my-own", CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        s3.copy_object(Bucket="of-my-own", Key="copy", CopySource={"Bucket": bucket, "Key": "a/b"})
        parts = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
        where = {"Bucket": bucket, "Key": "parts", "UploadId": parts}
        part = s3.upload_part(**where, PartNumber=1, Body=b"part")
        s3.complete_multipart_upload(
            **where, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        )
        s3.delete_object(Bucket=TREE[0], Key=TREE[1])
        s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": KEYS[0]}]})
        s3.put_object(Bucket=bucket, Key=KEYS[1], Body=b"again")
        stand_in.process.kill()
        stand_in.process.wait()
    with running(home) as stand_in:
        s3 = stand_in.client("s3")
        found = {row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]}
        assert found == {*KEYS[1:], "parts"}
        assert s3.get_object(Bucket=bucket, Key=KEYS[1])["Body"].read() == b"again"
        assert s3.get_object(Bucket=bucket, Key="parts")["Body"].read() == b"part"
        assert s3.get_object(Bucket="of-my-own", Key="copy")["Body"].read() == b"1"
        for number, key in enumerate(KEYS[2:], 2):
            answer = s3.get_object(Bucket=bucket, Key=key)
            assert answer["Body"].read() == str(number).encode()
            assert (answer["ContentType"], answer["Metadata"]) == ("text/plain", {"n": str(number)})
        assert "Contents" not in s3.list_objects_v2(Bucket=TREE[0])
        kept = [*(home / OBJECTS).rglob("*")]
        assert {stat.S_IMODE(one.stat().st_mode) for one in kept} == {0o700, 0o600}
        assert not [*tmp_path.rglob("*up*")]


def test_objects_of_earlier_version_are_migrated(tmp_path: Path) -> None:
    earlier = tmp_path / EARLIER / TREE[0] / "phylo_runs" / "1"
    earlier.mkdir(parents=True)
    (earlier / "tree.json").write_bytes(TREE[2])
    objects = ObjectFolder(tmp_path / OBJECTS)
    objects.adopt(tmp_path / EARLIER)
    assert [*objects] == [TREE]
    assert not (tmp_path / EARLIER).exists()
    objects.adopt(tmp_path / EARLIER)  # a repeat changes nothing
    assert [*objects] == [TREE]
