"""``python -m aspen.local.aws --port P --folder D``: run the AWS emulator (moto) as a server.

It reads its content, its access key, and the S3 objects from the folder before it accepts requests.
Changes to objects are saved before the response is sent; changes to secrets, parameters, and jobs
are lost when it stops.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

from moto.backends import SERVICE_NAMES, get_backend
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.models import FakeKey
from werkzeug.serving import make_server

from aspen.local.aws.content import (
    ACCOUNT,
    EARLIER,
    OBJECTS,
    REGION,
    Content,
    ObjectFolder,
    read_content,
    read_credentials,
)
from aspen.local.aws.gate import Gate
from aspen.local.processes import HOST
from aspencli.errors import AspenError

# The keys are the service names in signatures. moto's own dispatcher is not used, as it would also
# serve every other service and moto's reset and dashboard pages.
_SERVICES: Mapping[str, SERVICE_NAMES] = {
    "s3": "s3",
    "secretsmanager": "secretsmanager",
    "ssm": "ssm",
    "states": "stepfunctions",
}
_ROLE = f"arn:aws:iam::{ACCOUNT}:role/aspen-local"
_MACHINE = json.dumps(
    {
        "Comment": "Emulator: accepts the job and does nothing.",
        "StartAt": "Accept",
        "States": {"Accept": {"Type": "Pass", "End": True}},
    }
)


def main() -> int:
    """Serve until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m aspen.local.aws", description=__doc__)
    parser.add_argument(
        "--port", type=int, required=True, help="port to listen on (127.0.0.1 only)"
    )
    parser.add_argument("--folder", type=Path, required=True, help="folder with the content")
    chosen = parser.parse_args()
    return serve(chosen.port, chosen.folder)


def serve(port: int, folder: Path) -> int:
    """Serve the content of a folder until SIGTERM or Ctrl-C; return the exit code."""
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    try:
        content, key = read_content(folder), read_credentials(folder)
    except AspenError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code

    objects = ObjectFolder(folder / OBJECTS)
    objects.adopt(folder / EARLIER)
    for bucket in content.buckets:
        objects.make_bucket(bucket)
    _fill_secrets(content)
    _fill_parameters(content)
    _fill_machines(content)
    services = {name: create_backend_app(backend) for name, backend in _SERVICES.items()}
    gate = Gate(services, key, port, Mirror(objects).save)
    server = make_server(HOST, port, gate, threaded=True, request_handler=MotoRequestHandler)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def load() -> None:
    """Load moto's backends, which takes most of the startup time."""
    for name in _SERVICES.values():
        get_backend(name)


class Mirror:
    """A mirror that loads a folder into moto's S3, and keeps the folder in sync with it.

    After each request that may have changed something, the differences are written. This covers
    every way to create and delete objects (copies, multipart uploads, lists of keys).
    """

    def __init__(self, folder: ObjectFolder):
        self._backend, self._folder = get_backend("s3")[ACCOUNT]["aws"], folder
        self._kept: dict[str, dict[str, FakeKey]] = {}
        self._lock = Lock()
        for bucket in folder.buckets():
            self._backend.create_bucket(bucket, REGION)
            self._kept[bucket] = {}
        for file in folder.stored():
            made = self._backend.put_object(file.bucket, file.key, file.body)
            made.set_metadata(dict(file.metadata))
            made.last_modified = file.modified.replace(tzinfo=None)  # moto's are naive UTC
            self._kept[file.bucket][file.key] = made

    def save(self) -> None:
        """Write the changes since the last call to the folder.

        Raises:
            OSError: The changes cannot be written.
        """
        with self._lock:
            buckets = dict(self._backend.buckets)
            for name in self._kept.keys() - buckets.keys():
                self._folder.delete_bucket(name)
                del self._kept[name]
            for name, bucket in buckets.items():
                if name not in self._kept:
                    self._folder.make_bucket(name)
                    self._kept[name] = {}
                self._save(name, bucket)

    def _save(self, name: str, bucket: Any) -> None:
        kept = self._kept[name]
        now = {key: one for key, one in list(bucket.keys.items()) if isinstance(one, FakeKey)}
        for key in kept.keys() - now.keys():
            self._folder.delete(name, key)
            del kept[key]
        for key, one in now.items():
            if kept.get(key) is not one:
                modified = one.last_modified.replace(tzinfo=dt.UTC)
                self._folder.put(name, key, one.value, dict(one.metadata), modified)
                kept[key] = one


def _fill_secrets(content: Content) -> None:
    manager = get_backend("secretsmanager")[ACCOUNT][REGION]
    for name, value in content.secrets.items():
        manager.create_secret(
            name=name,
            secret_string=json.dumps(value),
            secret_binary=None,
            description=None,
            tags=[],
            kms_key_id=None,
            client_request_token=None,
            replica_regions=[],
            force_overwrite=False,
        )


def _fill_parameters(content: Content) -> None:
    store = get_backend("ssm")[ACCOUNT][REGION]
    for name, value in content.parameters.items():
        store.put_parameter(
            name=name,
            description="",
            value=json.dumps(value),
            parameter_type="String",
            allowed_pattern="",
            keyid="",
            overwrite=True,
            tags=[],
            data_type="text",
            tier=None,
            policies=None,
        )


def _fill_machines(content: Content) -> None:
    functions = get_backend("stepfunctions")[ACCOUNT][REGION]
    for name in content.machines:
        functions.create_state_machine(name=name, definition=_MACHINE, roleArn=_ROLE)
