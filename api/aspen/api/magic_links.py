"""Magic links, each of which opens one tree in the context of one group for a week."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import timedelta

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from aspen.api.errors import ApiError
from aspen.api.settings import Settings

LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class MagicLink:
    """The contents of a link, which are protected by a signature.

    Attributes:
        tree_id: The tree that it opens.
        user_id: The user who created it; it shows what that user may see at the time of use.
        group_id: The group in whose context it opens.
    """

    tree_id: int
    user_id: int
    group_id: int

    def sign(self, settings: Settings) -> str:
        """Return the signed link for use in a URL."""
        return str(_serializer(settings).dumps(asdict(self)))

    @classmethod
    def read(cls, text: str, settings: Settings) -> MagicLink:
        """Return the contents of a signed link.

        Raises:
            ApiError: 400 if the link is invalid or has expired.
        """
        try:
            held = _serializer(settings).loads(text, max_age=int(LIFETIME.total_seconds()))
        except SignatureExpired as error:
            raise ApiError(400, "This link has expired") from error
        except BadData as error:
            raise unauthenticated() from error
        return cls(**held)


def unauthenticated() -> ApiError:
    """Return the error for a link that is invalid or opens nothing."""
    return ApiError(400, "Unauthenticated attempt to access an auspice magic link")


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        settings.mac_key,
        salt="auspice",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha3_512},
    )
