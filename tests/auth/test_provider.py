"""Identity providers that do not behave as expected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from aspencli.auth.provider import Provider, verify
from aspencli.auth.session import DeviceCode, NotYet, SignInTarget, StoredSignIn
from aspencli.errors import AspenError, CredentialsError, UnreachableError
from tests.remote.conftest import Serving
from tests.remote.naughty import Reply, Route, Seen, hang_up, reply, reply_json

Making = Callable[..., Provider]
CODE = DeviceCode("secret", "AB-CD", "https://x", None, 900, 5)
BEGUN = {
    "device_code": "secret",
    "user_code": "AB-CD",
    "verification_uri": "https://login.example.org/device",
}


@pytest.fixture
def making(serving: Serving) -> Iterator[Making]:
    """Yield a factory of clients of a provider with the given device and token replies."""
    with ExitStack() as exits:

        def make(answer: Reply, answering: Route | None = None, **document: Any) -> Provider:
            def route(seen: Seen) -> Reply:
                if not seen.target.endswith("openid-configuration"):
                    return answering(seen) if answering else answer
                here = f"http://{seen.headers['host']}"
                known = {
                    "issuer": f"{here}/",
                    "jwks_uri": f"{here}/keys",
                    "token_endpoint": f"{here}/token",
                    "device_authorization_endpoint": f"{here}/device",
                }
                all_known = {**known, **document}
                return reply_json({k: v for k, v in all_known.items() if v is not None})

            server = serving(route=route)
            place = SignInTarget("mylab", "https://api.example.org", server.url, "client")
            return exits.enter_context(Provider(place))

        yield make


def test_device_code_without_optional_fields_uses_defaults(making: Making) -> None:
    code = making(reply_json(BEGUN)).begin()
    assert (code.interval, code.seconds, code.page_with_code) == (5, 900, None)
    assert code.link == "https://login.example.org/device"
    assert "secret" not in repr(code)


@pytest.mark.parametrize("value", ["soon", -1, 0, True, None])
def test_device_code_with_invalid_numbers_uses_defaults(making: Making, value: Any) -> None:
    code = making(reply_json({**BEGUN, "interval": value, "expires_in": value})).begin()
    assert (code.interval, code.seconds) == (5, 900)


@pytest.mark.parametrize(
    "link", ["file:///etc/passwd", "http://x.example.org/", "javascript:1", ""]
)
def test_unsafe_sign_in_page_url_is_rejected(making: Making, link: str) -> None:
    for key in ("verification_uri", "verification_uri_complete"):
        with pytest.raises(CredentialsError, match="No valid sign-in page"):
            making(reply_json({**BEGUN, key: link})).begin()


@pytest.mark.parametrize("status", [200, 400, 401, 403, 428])
def test_poll_result_depends_on_json_not_on_status(making: Making, status: int) -> None:
    pending = reply_json({"error": "authorization_pending"}, status)
    found = making(pending).poll(CODE)
    assert found == NotYet("authorization_pending")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (reply(429, headers={"Retry-After": "9"}), NotYet("HTTP 429", passing=True, wait=9.0)),
        (reply(500, "<html>"), NotYet("HTTP 500", passing=True)),
        (
            reply_json({"error": "too_many_requests"}, 429),
            NotYet("too_many_requests", passing=True),
        ),
        (
            hang_up,
            NotYet("", "connection closed before the response was complete", passing=True),
        ),
    ],
)
def test_temporary_poll_failure_is_retryable(
    making: Making, answer: Reply, expected: NotYet
) -> None:
    assert making(answer).poll(CODE) == expected


@pytest.mark.parametrize("answer", [{}, {"access_token": "x"}, {"id_token": 3}, []])
def test_approval_without_id_token_is_reported(making: Making, answer: Any) -> None:
    with pytest.raises(CredentialsError, match=r"No id_token was issued by .* \(HTTP 200\)"):
        making(reply_json(answer)).poll(CODE)


@pytest.mark.parametrize("token", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", ""])
def test_malformed_id_token_is_rejected(making: Making, token: str) -> None:
    provider = making(reply_json({"id_token": token, "keys": [{"kty": "EC"}]}))
    with pytest.raises(CredentialsError, match="has an invalid signature"):
        provider.poll(CODE)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"device_authorization_endpoint": None}, "No device_authorization_endpoint in"),
        (
            {"device_authorization_endpoint": "http://x.example.org/"},
            "Refused to send secrets unencrypted",
        ),
        ({"issuer": "https://other.example.org/"}, "Wrong issuer: "),
        ({"issuer": None}, "Wrong issuer: "),
    ],
)
def test_untrusted_provider_configuration_is_rejected(
    making: Making, document: dict[str, Any], words: str
) -> None:
    with pytest.raises(AspenError, match=words) as caught:
        making(reply_json(BEGUN), **document).begin()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("answer", [reply(404), reply(200, "<html>"), reply_json([]), reply(302)])
def test_server_that_is_not_a_provider_is_reported(serving: Serving, answer: Reply) -> None:
    place = SignInTarget("mylab", "https://api.example.org", serving(answer).url, "client")
    with (
        Provider(place) as provider,
        pytest.raises(UnreachableError, match="expected JSON from an identity provider"),
    ):
        provider.begin()


def test_revoke_returns_false_without_revocation_endpoint(making: Making) -> None:
    assert making(reply_json({})).revoke("token") is False


def test_failed_renewal_returns_provider_error(making: Making) -> None:
    before = StoredSignIn("token", "refresh", "auth0|x", 0, 0)
    found = making(reply_json({"error": "invalid_grant"}, 403)).refresh(before)
    assert found == NotYet("invalid_grant")


def test_rejected_revocation_is_reported(making: Making, serving: Serving) -> None:
    refusing = serving(reply_json({"error": "unsupported_token_type"}, 400))
    provider = making(reply_json({}), revocation_endpoint=f"{refusing.url}/revoke")
    with pytest.raises(CredentialsError, match=r"rejected by .*: unsupported_token_type"):
        provider.revoke("token")


# Tokens


KEY = RSAKey.generate_key(2048, {"kid": "k"})


def _verified(claims: dict[str, Any], *, ahead: float | None = 0) -> dict[str, Any]:
    now = time.time()
    usual = {"iss": "https://i/", "aud": "client", "sub": "x", "iat": now, "exp": now + 600}
    given = {key: value for key, value in {**usual, **claims}.items() if value is not None}
    token = jwt.encode({"alg": "RS256", "kid": "k"}, given, KEY)
    keys = KeySet([KEY]).as_dict(private=False)
    return verify(
        token,
        keys,
        issuer="https://i/",
        client_id="client",
        name="the provider",
        now=now,
        seconds_ahead=ahead,
    )


@pytest.mark.parametrize("claims", [{}, {"aud": ["client", "api"], "azp": "client"}])
def test_token_for_this_client_is_accepted(claims: dict[str, Any]) -> None:
    assert _verified(claims)["sub"] == "x"


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"aud": ["client", "api"]}, "its azp is not this client"),
        ({"aud": ["client", "api"], "azp": "api"}, "its azp is not this client"),
        ({"sub": None}, "has no sub claim"),
        ({"iat": None}, "has no iat claim"),
        ({"exp": None}, "has no exp claim"),
        ({"iss": None}, "has no iss claim"),
        ({"nbf": time.time() + 9_000}, "is not valid yet"),
    ],
)
def test_token_with_invalid_claims_is_rejected(claims: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialsError, match=words):
        _verified(claims)


def test_expired_token_with_unknown_clock_skew_blames_either_clock() -> None:
    with pytest.raises(
        CredentialsError, match="has already expired: one of the two clocks is wrong"
    ):
        _verified({"exp": time.time() - 900}, ahead=None)


def test_renewal_for_different_user_is_rejected(making: Making) -> None:
    def answer(seen: Seen) -> Reply:
        now = int(time.time())
        claims = {"aud": "client", "sub": "auth0|y", "iat": now, "exp": now + 600}
        claims["iss"] = f"http://{seen.headers['host']}/"
        token = jwt.encode({"alg": "RS256", "kid": "k"}, claims, KEY)
        return reply_json({"id_token": token, **KeySet([KEY]).as_dict(private=False)})

    before = StoredSignIn("token", "refresh", "auth0|x", 0, 0, "Ada")
    with pytest.raises(
        CredentialsError, match="Renewing the sign-in of Ada returned a token for a different user"
    ):
        making(reply(500), answer).refresh(before)
    same = making(reply(500), answer).refresh(replace(before, subject="auth0|y"))
    assert isinstance(same, StoredSignIn)
    assert same.refresh_token == "refresh"  # without rotation, it stays the same
