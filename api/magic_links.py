"""Magic links: they open one tree, in one group's context, for a week."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import timedelta

from itsdangerous import BadData, SignatureExpired, URLSafeTimedSerializer

from api.errors import ApiError
from api.settings import Settings

LIFETIME = timedelta(days=7)


@dataclass(frozen=True)
class MagicLink:
    """What a link stands for; its signature keeps it from being changed.

    Attributes:
        tree_id: The tree that it opens.
        user_id: Who made it: it shows what they may see when it is used.
        group_id: In whose context.
    """

    tree_id: int
    user_id: int
    group_id: int

    def sign(self, settings: Settings) -> str:
        """The link as part of an address."""
        return str(_serializer(settings).dumps(asdict(self)))

    @classmethod
    def read(cls, text: str, settings: Settings) -> MagicLink:
        """What somebody came with.

        Raises:
            ApiError: 400, when it is none of ours, or too old.
        """
        try:
            held = _serializer(settings).loads(text, max_age=int(LIFETIME.total_seconds()))
        except SignatureExpired as error:
            raise ApiError(400, "This link has expired") from error
        except BadData as error:
            raise unauthenticated() from error
        return cls(**held)


def unauthenticated() -> ApiError:
    """Return the error of who comes with no link of ours, or with one that opens nothing."""
    return ApiError(400, "Unauthenticated attempt to access an auspice magic link")


def _serializer(settings: Settings) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(
        settings.mac_key,
        salt="auspice",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha3_512},
    )
