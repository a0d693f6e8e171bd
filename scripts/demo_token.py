"""Signs in to the local deployment as a user would in the browser, and prints the token.

This is only for the demo: `aspencli auth login` needs a person to approve.
"""

from __future__ import annotations

import html
import re
import sys

import httpx

from aspencli import files
from aspencli.machine import read_endpoints

_FORM = re.compile(r'<form method="post" action="([^"]+)".*?</form>', re.DOTALL)
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


def main(email: str) -> int:
    """Print the token of the user with this e-mail address."""
    known = read_endpoints(files.data_dir())
    if known is None or known.auth_url is None:
        sys.stderr.write("The local deployment never ran; start it: aspencli local up\n")
        return 5
    with httpx.Client(base_url=known.auth_url, follow_redirects=True, trust_env=False) as browser:
        client = {"client_id": known.client_id}
        asked = browser.post("oauth/device/code", data={**client, "scope": "openid profile email"})
        codes = asked.raise_for_status().json()
        page = browser.get("activate", params={"user_code": codes["user_code"]})
        page = _submit(browser, page, email=email)
        _submit(browser, page, decision="approve")
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        told = {**client, "grant_type": grant, "device_code": codes["device_code"]}
        answer = browser.post("oauth/token", data=told).raise_for_status()
        sys.stdout.write(answer.json()["id_token"])
    return 0


def _submit(browser: httpx.Client, page: httpx.Response, **fields: str) -> httpx.Response:
    """Submit the form of a page, as a browser does."""
    form = _FORM.search(page.raise_for_status().text)
    if form is None:
        raise SystemExit("The page of the identity provider has no form.")
    hidden = {name: html.unescape(value) for name, value in _HIDDEN.findall(form[0])}
    return browser.post(html.unescape(form[1]), data={**hidden, **fields}).raise_for_status()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
