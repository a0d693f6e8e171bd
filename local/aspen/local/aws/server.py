"""``python -m aspen.local.aws --port P --folder D``: run the AWS emulator (moto) as a server.

It reads its content, its access key, and the S3 objects from the folder before it accepts requests.
Changes to objects are saved before the response is sent; changes to secrets, parameters, and jobs
are lost when it stops.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moto.backends import SERVICE_NAMES, get_backend
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from aspen.local.aws.content import (
    ACCOUNT,
    EARLIER,
    OBJECTS,
    REGION,
    Content,
    Credentials,
    ObjectFolder,
    read_content,
    read_credentials,
)
from aspen.local.aws.gate import Gate, Mirror
from aspen.local.processes import HOST
from aspencli.errors import AspenError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer


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
        content, credentials = read_content(folder), read_credentials(folder)
    except AspenError as error:
        sys.stderr.write(f"{error.message}\n")
        return error.exit_code

    objects = ObjectFolder(folder / OBJECTS)
    objects.adopt(folder / EARLIER)
    listening = make(port, credentials, fill(content, objects))
    try:
        listening.serve_forever()
    except KeyboardInterrupt:
        return 0
    return 0


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


def load() -> None:
    """Load moto's backends, which takes most of the startup time."""
    for name in _SERVICES.values():
        get_backend(name)


def fill(content: Content, objects: ObjectFolder) -> Mirror:
    """Load the content and the stored objects into this process's moto.

    Returns:
        The mirror that keeps the folder of objects in sync with moto's S3.
    """
    mirror = Mirror(get_backend("s3")[ACCOUNT]["aws"], objects, REGION)
    for bucket in content.buckets:
        objects.make_bucket(bucket)
    mirror.load()
    _fill_secrets(content)
    _fill_parameters(content)
    _fill_machines(content)
    return mirror


def make(port: int, credentials: Credentials, mirror: Mirror) -> BaseWSGIServer:
    """Return a server on 127.0.0.1 for this process's moto; ``serve_forever`` runs it."""
    services = {name: create_backend_app(backend) for name, backend in _SERVICES.items()}
    gate = Gate(services, credentials, port, mirror)
    return make_server(HOST, port, gate, threaded=True, request_handler=MotoRequestHandler)


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
