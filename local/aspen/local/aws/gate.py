"""Access control for the emulator: only signed requests from this machine, none from web pages.

Requests are signed with AWS Signature Version 4, in a header or in the query of a presigned URL:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote
from xml.sax.saxutils import escape

from werkzeug.test import run_wsgi_app

from aspen.api.aws import AccessKey
from aspen.local.processes import HOST

HEALTH = "/_health"
"""A path that returns 200 without a signature; no bucket can have that name."""
Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_ALGORITHM = "AWS4-HMAC-SHA256"
_HEADER = re.compile(
    rf"{_ALGORITHM} Credential=([^,\s]+),\s*SignedHeaders=([^,\s]+),\s*Signature=([0-9a-f]{{64}})"
)
_SKEW = dt.timedelta(minutes=15)
_LONGEST = 7 * 24 * 3600  # the longest lifetime of a presigned URL, in seconds
_SCOPE_PARTS = 5
_UNSIGNED = frozenset({"UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"})
_DIGEST = re.compile("[0-9a-f]{64}")
_LARGEST_BEFORE_SIGNATURE = 10_000_000  # bytes; S3 requests have the digest in a header instead
_QUIET_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_S3 = "s3"

_PRESIGNED = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")


class _RefusedError(Exception):
    """An error that refuses a request, with AWS's code and the reason."""

    def __init__(self, code: str, message: str, status: HTTPStatus = HTTPStatus.FORBIDDEN):
        super().__init__(message)
        self.code, self.status = code, status


class Gate:
    """A WSGI application that forwards trusted requests to the services.

    Args:
        services: The application of each service, by the service name in the signature.
        key: The only access key that requests may be signed with.
        port: The emulator's port.
        save: Saves changes to S3 objects; raises OSError if that fails.
    """

    def __init__(
        self,
        services: Mapping[str, Application],
        key: AccessKey,
        port: int,
        save: Callable[[], None],
    ):
        self._services, self._key, self._save = services, key, save
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request."""
        try:
            self._check_sender(environ)
            if _path(environ) == HEALTH:
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"ok\n"]
            service = _Signature.of(environ).check(self._key)
            if service not in self._services:
                raise _RefusedError(
                    "AccessDenied", f"This emulator does not support the service {service}."
                )
            return self._pass_on(service, environ, start_response)
        except _RefusedError as error:
            return _refuse(error, environ, start_response)

    def _check_sender(self, environ: Environ) -> None:
        """Refuse requests from web pages, including those that reach us by DNS rebinding."""
        if environ.get("HTTP_HOST", "") not in self._hosts:
            raise _RefusedError("AccessDenied", "The host must be 127.0.0.1 or localhost.")
        origin = environ.get("HTTP_ORIGIN")
        if origin is not None and origin not in self._origins:
            raise _RefusedError("AccessDenied", "Requests from web pages are not allowed.")

    def _pass_on(
        self, service: str, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Forward a request to the service, and save its changes before sending the response."""
        environ.pop("HTTP_X_MOTO_ACCOUNT_ID", None)  # there is only one account
        body, status, headers = run_wsgi_app(self._services[service], environ, buffered=True)
        if service == _S3 and environ["REQUEST_METHOD"] not in _QUIET_METHODS:
            try:
                self._save()
            except OSError as error:
                raise _RefusedError(
                    "InternalError",
                    f"Cannot store the object: {error.strerror}",
                    HTTPStatus.INTERNAL_SERVER_ERROR,
                ) from error
        kept = [one for one in headers if not one[0].lower().startswith("access-control-")]
        start_response(status, kept)
        return body


@dataclass(frozen=True)
class _Signature:
    """The signature of a request.

    Attributes:
        scope: The access key ID, date, region, service, and ``aws4_request``.
        moment: The time of signing, as stated in the request.
        signed: The names of the signed headers.
        value: The signature itself.
        lifetime: The lifetime of a presigned URL, in seconds; None for a signature in a header.
    """

    environ: Environ
    scope: list[str]
    moment: str
    signed: list[str]
    value: str
    lifetime: str | None

    @classmethod
    def of(cls, environ: Environ) -> _Signature:
        """Return the signature in a request's header or URL."""
        if header := environ.get("HTTP_AUTHORIZATION"):
            if not (found := _HEADER.fullmatch(header.strip())):
                raise _RefusedError(
                    "AuthorizationHeaderMalformed", f"Only {_ALGORITHM} signatures are accepted."
                )
            scope, signed, value = found.groups()
            moment, lifetime = environ.get("HTTP_X_AMZ_DATE", ""), None
        else:
            given = parse_qs(environ.get("QUERY_STRING", ""))
            algorithm, scope, moment, lifetime, signed, value = (
                given.get(f"X-Amz-{name}", [""])[0] for name in _PRESIGNED
            )
            if algorithm != _ALGORITHM:
                raise _RefusedError("MissingAuthenticationToken", "The request is not signed.")
        parts = scope.split("/")
        if len(parts) != _SCOPE_PARTS or parts[-1] != "aws4_request":
            raise _RefusedError("AuthorizationHeaderMalformed", "The credential scope is invalid.")
        return cls(environ, parts, moment, signed.split(";"), value, lifetime)

    def check(self, key: AccessKey) -> str:
        """Check the signature, and return the service that the request is signed for."""
        signer, day, region, service, _ = self.scope
        if not hmac.compare_digest(signer.encode(), key.key.encode()):
            raise _RefusedError("InvalidAccessKeyId", "The access key does not exist.")
        if "host" not in self.signed:
            raise _RefusedError("AccessDenied", "The signature must cover the Host header.")
        self._check_moment(day)
        derived = f"AWS4{key.secret}".encode()
        for part in (day, region, service, "aws4_request"):
            derived = hmac.digest(derived, part.encode(), "sha256")
        canonical = hashlib.sha256(self._canonical(service)).hexdigest()
        text = "\n".join((_ALGORITHM, self.moment, "/".join(self.scope[1:]), canonical))
        right = hmac.digest(derived, text.encode(), "sha256").hex()
        if not hmac.compare_digest(right, self.value):
            raise _RefusedError("SignatureDoesNotMatch", "The signature does not match.")
        self._check_payload()
        return service

    def _check_moment(self, day: str) -> None:
        try:
            made = dt.datetime.strptime(self.moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
            lifetime = None if self.lifetime is None else int(self.lifetime)
        except ValueError as error:
            raise _RefusedError("AccessDenied", "The date of the signature is invalid.") from error
        age = dt.datetime.now(dt.UTC) - made
        valid = _SKEW if lifetime is None else dt.timedelta(seconds=min(lifetime, _LONGEST))
        if not self.moment.startswith(day) or not -_SKEW <= age <= valid:
            raise _RefusedError("AccessDenied", "The signature has expired.")

    def _canonical(self, service: str) -> bytes:
        """Return the canonical request, which is what was signed."""
        environ, path = self.environ, _path(self.environ)
        names = sorted(set(self.signed))
        headers = "".join(f"{name}:{self._header(name)}\n" for name in names)
        return "\n".join(
            (
                environ["REQUEST_METHOD"],
                path if service == _S3 else quote(path, safe="/~"),
                self._query(),
                headers,
                ";".join(names),
                self._payload(),
            )
        ).encode("latin-1", "replace")

    def _query(self) -> str:
        pairs = self.environ.get("QUERY_STRING", "").split("&")
        return "&".join(
            sorted(
                one if "=" in one else f"{one}="
                for one in pairs
                if one and not one.startswith("X-Amz-Signature=")
            )
        )

    def _header(self, name: str) -> str:
        key = name.upper().replace("-", "_")
        named = key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"
        return " ".join(self.environ.get(named, "").split())

    def _payload(self) -> str:
        if self.lifetime is not None:
            return "UNSIGNED-PAYLOAD"
        stated = self.environ.get("HTTP_X_AMZ_CONTENT_SHA256")
        return str(stated) if stated else _digest(self.environ, _LARGEST_BEFORE_SIGNATURE)

    def _check_payload(self) -> None:
        """Check that the body matches the signed digest."""
        stated = self.environ.get("HTTP_X_AMZ_CONTENT_SHA256")
        if self.lifetime is not None or not stated or stated in _UNSIGNED:
            return
        if not _DIGEST.fullmatch(stated) or stated != _digest(self.environ, None):
            raise _RefusedError(
                "XAmzContentSHA256Mismatch", "The body does not match the signature."
            )


def _digest(environ: Environ, largest: int | None) -> str:
    """Return the digest of the body, and leave the body readable for the service."""
    length = environ.get("CONTENT_LENGTH") or ""
    chunked = bool(environ.get("wsgi.input_terminated"))
    if largest is not None and (chunked or int(length or 0) > largest):
        raise _RefusedError("RequestEntityTooLarge", "The body is too large.")
    body = environ["wsgi.input"].read(*(() if chunked else (int(length or 0),)))
    environ["wsgi.input"] = io.BytesIO(body)
    return hashlib.sha256(body).hexdigest()


def _path(environ: Environ) -> str:
    """Return the path as it was sent, still URL-encoded."""
    return str(environ["RAW_URI"]).partition("?")[0]


def _refuse(
    error: _RefusedError, environ: Environ, start_response: StartResponse
) -> Iterable[bytes]:
    status = f"{error.status.value} {error.status.phrase}"
    if "HTTP_X_AMZ_TARGET" not in environ:  # S3, whose errors are XML
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{error.code}</Code><Message>{escape(str(error))}</Message></Error>\n"
        )
        kind = "application/xml"
    else:
        body = json.dumps({"__type": error.code, "message": str(error)})
        kind = "application/x-amz-json-1.1"
    # Close the connection, so that an unread body is not parsed as the next request.
    start_response(status, [("Content-Type", kind), ("Connection", "close")])
    return [body.encode()]
