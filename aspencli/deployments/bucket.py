"""Objects in a bucket of S3, each of which is created once and never changed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aspencli.deployments.aws import code_of
from aspencli.errors import AspenError

if TYPE_CHECKING:
    from aspencli.deployments.aws import Aws

_EXISTS = "PreconditionFailed"
_BUSY = "ConditionalRequestConflict"  # another request for the same key has not ended yet
_MISSING = "NoSuchKey"
_TRIES, _PAUSE_S = 5, 0.1
PAGE = 1_000
"""The most keys that S3 lists at a time."""


class Bucket:
    """A bucket, with the credentials to read and to add objects.

    Args:
        aws: The account.
        name: The bucket's name.
    """

    def __init__(self, aws: Aws, name: str):
        self._aws = aws
        self.name = name

    def create(self, key: str, body: bytes) -> bool:
        """Create an object, and return False if the key exists, perhaps with the same content.

        Raises:
            AspenError: It cannot be written, or it is unknown if it was.
        """

        def put(client: Any) -> None:
            client.put_object(
                Bucket=self.name,
                Key=key,
                Body=body,
                ContentType="application/json",
                IfNoneMatch="*",
            )

        for left in reversed(range(_TRIES)):
            try:
                self._aws.use(f"write to the bucket {self.name}", "s3", put)
            except AspenError as error:
                code = code_of(error)
                if code == _EXISTS:
                    return False
                if code != _BUSY or not left:
                    raise
                time.sleep(_PAUSE_S)
            else:
                return True
        return False

    def read(self, key: str) -> bytes | None:
        """Return the content of an object, or None if it does not exist.

        Raises:
            AspenError: It cannot be read.
        """

        def get(client: Any) -> bytes:
            body: bytes = client.get_object(Bucket=self.name, Key=key)["Body"].read()
            return body

        try:
            return self._aws.use(f"read from the bucket {self.name}", "s3", get)
        except AspenError as error:
            if code_of(error) == _MISSING:
                return None
            raise

    def keys(self, prefix: str, *, after: str = "", most: int = PAGE) -> list[str]:
        """Return keys that begin with a prefix, in order, from the first one after a key.

        Raises:
            AspenError: They cannot be listed.
        """

        def page(client: Any) -> list[str]:
            options = {"StartAfter": after} if after else {}
            found = client.list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=most, **options)
            return [each["Key"] for each in found.get("Contents", ())]

        return self._aws.use(f"list the bucket {self.name}", "s3", page)
