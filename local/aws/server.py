"""moto, filled with a deployment's content and served over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from moto.backends import SERVICE_NAMES, get_backend
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from local.aws.content import ACCOUNT, REGION, Content
from local.ports import HOST

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

HEALTH = "/moto-api/"
"""A path that answers with 200 once everything is there."""
_SERVICES: tuple[SERVICE_NAMES, ...] = ("s3", "secretsmanager", "ssm", "stepfunctions")
_ROLE = f"arn:aws:iam::{ACCOUNT}:role/aspen-local"
_MACHINE = json.dumps(
    {
        "Comment": "A stand-in: it takes the job and does nothing.",
        "StartAt": "Accept",
        "States": {"Accept": {"Type": "Pass", "End": True}},
    }
)


def load() -> None:
    """Load what moto needs for the services: most of a start's time."""
    for name in _SERVICES:
        get_backend(name)


def fill(content: Content, objects: Iterable[tuple[str, str, bytes]] = ()) -> None:
    """Put the content, and files by bucket and key, into this process's moto."""
    _fill_s3(content, objects)
    _fill_secrets(content)
    _fill_parameters(content)
    _fill_machines(content)


def make(port: int) -> BaseWSGIServer:
    """A server on 127.0.0.1 that answers for this process's moto; ``serve_forever`` runs it.

    Args:
        port: Its port; 0 for any that is free.
    """
    application = DomainDispatcherApplication(create_backend_app)
    return make_server(HOST, port, application, threaded=True, request_handler=MotoRequestHandler)


def _fill_s3(content: Content, objects: Iterable[tuple[str, str, bytes]]) -> None:
    s3 = get_backend("s3")[ACCOUNT]["aws"]
    for bucket in content.buckets:
        s3.create_bucket(bucket, REGION)
    for bucket, key, body in objects:
        s3.put_object(bucket, key, body)


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
