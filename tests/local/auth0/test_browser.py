"""The pages in Chromium: with and without scripts, light and dark, and on a phone.

Chromium is the system's (Debian: ``apt install chromium``); ``pip install playwright`` drives it.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest

from tests.browsing import ARGUMENTS, CHROMIUM, driven, needs_chromium
from tests.local.auth0.lab import CALLBACK, CLIENT, ORGANIZATIONS, Identity

WINDOWS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1000, "height": 800}, "java_script_enabled": True},
    "dark": {
        "viewport": {"width": 1000, "height": 800},
        "color_scheme": "dark",
        "java_script_enabled": False,
    },
    "phone": {"viewport": {"width": 320, "height": 640}, "java_script_enabled": False},
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with driven() as browser:
        yield browser


@pytest.fixture(params=sorted(WINDOWS))
def page(chromium: Any, identity: Identity, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Yield a page that fails the test if it sends a request to another server."""
    context = chromium.new_context(**WINDOWS[request.param])
    opened, asked = context.new_page(), []
    opened.on("request", lambda sent: asked.append(sent.url))
    yield opened
    context.close()
    assert asked
    expected = (identity.issuer, CALLBACK, "data:")
    assert [url for url in asked if not url.startswith(expected)] == []


def fits(page: Any) -> bool:
    """Return True if nothing requires horizontal scrolling."""
    width = page.viewport_size["width"]
    boxes = [box.bounding_box() for box in page.locator("main, main *:visible").all()]
    return all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes if box)


@needs_chromium
def test_device_code_sign_in_and_approval_work_in_browser(page: Any, identity: Identity) -> None:
    asked = identity.ask(organization=ORGANIZATIONS[0])
    page.goto(asked["verification_uri"])
    assert fits(page)
    page.keyboard.type(asked["user_code"].lower())  # the field has the focus
    page.keyboard.press("Enter")
    page.wait_for_url("**/login?*")
    assert fits(page)
    page.get_by_role("button", name="Member Example").first.click()
    page.wait_for_url("**/activate/confirm?*")
    assert fits(page)
    assert page.locator("p.code").inner_text() == asked["user_code"]
    page.get_by_role("button", name="Approve").click()
    page.wait_for_url("**/activate/done?*")
    assert page.get_by_role("heading").inner_text() == "Approved. Return to the app."
    assert identity.poll(asked["device_code"]).status_code == 200


@needs_chromium
def test_device_request_can_be_denied_after_mistyped_input(page: Any, identity: Identity) -> None:
    asked = identity.ask()
    page.goto(asked["verification_uri"])
    page.get_by_label("Code").fill("BBBB-BBBB")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("alert").wait_for()
    assert fits(page)
    page.get_by_label("Code").fill(asked["user_code"])
    page.get_by_role("button", name="Continue").click()
    page.get_by_label("Another user").fill("nobody@example.org")
    page.get_by_role("button", name="Continue").click()
    assert "No user has" in page.get_by_role("alert").inner_text()
    page.get_by_label("Another user").fill("viewer@example.org")
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Deny").click()
    page.wait_for_url("**/activate/done?*")
    assert identity.poll(asked["device_code"]).json()["error"] == "access_denied"


@needs_chromium
def test_invited_newcomer_signs_up_in_browser(page: Any, identity: Identity) -> None:
    email = f"{uuid4().hex}@department-of-public-health.example.org"
    body = {"inviter": {"name": "Gale"}, "invitee": {"email": email}, "client_id": CLIENT}
    with identity.management() as api:
        path = f"organizations/{ORGANIZATIONS[0]}/invitations"
        made = api.post(path, json=body).raise_for_status().json()
        sent = {"client_id": CLIENT, "redirect_uri": CALLBACK, "response_type": "code"}
        sent |= {"organization": ORGANIZATIONS[0], "invitation": made["ticket_id"]}
        page.goto(f"{identity.issuer}authorize?{urlencode(sent)}")
        assert fits(page)
        assert email in page.locator("main").inner_text()
        page.keyboard.type("Nell Newcomer")  # the field has the focus
        # The service's own page, which the code is sent to, does not exist in this test.
        with page.expect_request(f"{CALLBACK}?code=*") as returned:
            page.keyboard.press("Enter")
        assert returned.value.is_navigation_request()
        (user,) = api.get("users-by-email", params={"email": email}).json()
    assert user["name"] == "Nell Newcomer"


@needs_chromium
def test_password_is_set_and_address_verified_in_browser(page: Any, identity: Identity) -> None:
    with identity.management() as api:
        who = {"user_id": "auth0|viewer"}
        password = api.post("tickets/password-change", json=who).json()["ticket"]
        verification = api.post("tickets/email-verification", json=who).json()["ticket"]
    page.goto(password)
    assert fits(page)
    page.get_by_label("New password").fill("one")
    page.get_by_label("Repeat the password").fill("two")
    page.get_by_role("button", name="Set password").click()
    assert page.get_by_role("alert").inner_text() == "The passwords are not the same."
    assert fits(page)
    page.get_by_label("New password").fill("one")
    page.get_by_label("Repeat the password").fill("one")
    page.keyboard.press("Enter")
    page.wait_for_load_state()
    assert page.get_by_role("heading").inner_text() == "Your password is set"
    assert fits(page)
    page.goto(verification)
    assert page.get_by_role("heading").inner_text() == "Your e-mail address is verified"
    page.reload()
    assert page.get_by_role("heading").inner_text() == "This link was already used"
    assert fits(page)


@needs_chromium
def test_light_and_dark_pages_have_readable_contrast(chromium: Any, identity: Identity) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{identity.issuer}activate")
        seen[scheme] = page.evaluate(
            "['main', 'h1', 'main'].map((name, at) => getComputedStyle("
            "document.querySelector(name))[at ? 'color' : 'backgroundColor'])"
        )
        context.close()
    assert seen["light"] != seen["dark"]
    for background, *inks in seen.values():
        assert all(contrast(background, ink) >= 7 for ink in inks)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors, as defined by WCAG 2."""

    def luminance(color: str) -> float:
        parts = [float(part) / 255 for part in color.strip("rgb()").split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@needs_chromium
def test_headless_chromium_renders_activation_page(identity: Identity, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    command = [str(CHROMIUM), *ARGUMENTS, "--headless", "--window-size=400,700"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}"]
    done = subprocess.run(
        [*command, f"{identity.issuer}activate"], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (400, 700)
