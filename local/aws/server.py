"""An HTTP server for moto, filled with a deployment's content."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from moto.backends import SERVICE_NAMES, get_backend
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from local.aws.content import ACCOUNT, REGION, Content, Credentials
from local.aws.gate import Gate
from local.aws.mirror import Mirror
from local.aws.objects import ObjectFolder
from local.ports import HOST

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

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
        "Comment": "A stand-in: it takes the job and does nothing.",
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
