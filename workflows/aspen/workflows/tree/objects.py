"""Objects of a run in the bucket, with failures explained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aspen.workflows.steps import StepError

_SERVER_ERRORS = 500
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Explain why AWS refused something; an outage is left to the engine, which tries again.

    Args:
        what: What is done, such as ``read s3://bucket/key``.

    Raises:
        StepError: AWS refused it.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError

    try:
        yield
    except (ClientError, S3UploadFailedError) as error:
        cause: Any = error if isinstance(error, ClientError) else error.__context__
        answer = getattr(cause, "response", None)
        if (
            not answer
            or answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= _SERVER_ERRORS
        ):
            raise
        code = str(answer.get("Error", {}).get("Code", ""))
        reason = "it does not exist" if code in _MISSING else answer["Error"].get("Message", code)
        raise StepError(f"Cannot {what}: {reason}.") from error
