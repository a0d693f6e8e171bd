"""``phylo-trees open``: a tree in Auspice, for the operator's browser only."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from aspen.api.trees import nodes
from aspencli.machine import start_of
from aspencli.phylo import auspice
from aspencli.phylo.auspice import PACKAGE, PACKAGE_FILE
from aspencli.phylo.viewer import POLICY
from tests import zygote
from tests.api.conftest import Cloud
from tests.browsing import PipedBrowser, needs_chromium
from tests.cli.commands.api_lab import ApiLab

PRIVATE = "RCPHL-0000001"
PUBLIC = "USA/CA-RCPHL-1/2020"
TIPS = "[...document.querySelectorAll('circle.tip')]"
NAMES = "[...document.querySelectorAll('text.tipLabel')].map(one => one.textContent)"
OPENED = "document.querySelectorAll('circle.tip').length"


@pytest.fixture
def lab(shared_lab: ApiLab) -> ApiLab:
    return shared_lab


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a stand-in for Auspice, for tests of the server."""
    (tmp_path / "auspice" / "dist").mkdir(parents=True)
    (tmp_path / "auspice" / "dist" / "index.html").write_text("<title>a stand-in</title>")
    (tmp_path / "auspice" / "dist" / "main.js").write_text("void 0")
    (tmp_path / "auspice" / "package.json").write_text("{}")
    return tmp_path / "auspice"


@pytest.fixture(scope="session")
def package(pytestconfig: pytest.Config) -> Path:
    """Return Auspice's package, which npm fetches once for all test runs."""
    program = shutil.which("npm")
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("auspice")
    path = folder / PACKAGE_FILE
    if not path.exists():
        if program is None:
            pytest.skip("npm, which fetches Auspice, is not installed")
        words = [program, "pack", PACKAGE, "--ignore-scripts"]
        done = subprocess.run(words, cwd=folder, capture_output=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip("npm cannot fetch Auspice, perhaps without a network")
    return path


def tree_of(lab: ApiLab, name: str = "Redwood County, overview", group: int = 1) -> str:
    rows = lab("phylo-runs", "list", "--group", str(group), "-o", "json", "--via", "db").json
    return str(next(row["phylo_tree"] for row in rows if row["name"] == name))


class Opened:
    """A running command with the address that it printed."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        assert process.stdout is not None
        self.header, self.url = process.stdout.readline(), process.stdout.readline().strip()
        if not self.url:
            pytest.fail(process.communicate(timeout=60)[1])
        self.port = urlsplit(self.url).port or 0
        self.place = urlsplit(self.url).path

    def ask(self, path: str, **headers: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return the status, the headers, and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=given)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, dict(answer.headers.items()), body

    def dataset(self) -> dict[str, Any]:
        """Return the tree that the page shows."""
        status, _headers, body = self.ask(f"/charon/getDataset?prefix={self.place}")
        assert status == 200
        found: dict[str, Any] = json.loads(body)
        return found

    def interrupt(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@contextmanager
def opened(lab: ApiLab, *words: str, who: str = "member") -> Iterator[Opened]:
    process = lab.start("phylo-trees", "open", *words, who=who)
    try:
        yield Opened(process)
    finally:
        process.kill()
        process.communicate()


def names_in(document: dict[str, Any]) -> set[str]:
    return {node["name"] for node in nodes(document) if "children" not in node}


def wait_for(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# The page


@needs_chromium
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("who", "group", "shown", "hidden"),
    [("member", "1", PRIVATE, PUBLIC), ("g2admin", "2", PUBLIC, PRIVATE)],
)
def test_browser_shows_samples_of_run_with_names_that_user_may_see(
    lab: ApiLab, package: Path, tmp_path: Path, who: str, group: str, shown: str, hidden: str
) -> None:
    tree = tree_of(lab, "Cluster at the cannery")
    words = (tree, "--group", group, "--auspice", str(package), "--print-url")
    with opened(lab, *words, who=who) as found, PipedBrowser(tmp_path / "chromium") as browser:
        page = browser.page(1200, 800)
        page.go(found.url)
        page.wait(OPENED)
        expected = names_in(found.dataset())
        assert page.value(OPENED) == len(expected)
        page.wait("document.querySelectorAll('text.tipLabel').length")
        assert set(page.value(NAMES)) <= expected
        assert shown in expected
        assert not any(hidden == name for name in expected)
        text = page.value("document.body.innerText + document.title")
        assert "Cluster at the cannery" in text
        assert hidden not in page.value("document.documentElement.outerHTML")
        own = f"http://127.0.0.1:{found.port}/"
        assert {
            url for url in page.requests if not url.startswith((own, "data:", "blob:"))
        } == set()
    selected = lab("phylo-trees", "selected-samples", tree, who="member").out
    samples = {line.split("\t")[0] for line in selected.splitlines()[1:] if "yes" in line.lower()}
    if who == "member":
        assert len(samples) == 8
        assert samples <= expected


def test_viewer_of_group_sees_public_identifiers_only(lab: ApiLab, copy: Path) -> None:
    words = (tree_of(lab), "--auspice", str(copy), "--print-url")
    with opened(lab, *words, who="viewer") as found:
        names = names_in(found.dataset())
    assert PUBLIC in names
    assert not any(name.startswith("RCPHL-") for name in names)


# Who can read it


def test_page_is_served_with_security_headers(lab: ApiLab, copy: Path) -> None:
    with opened(lab, tree_of(lab), "--auspice", str(copy), "--print-url") as found:
        for path in (found.place, "/dist/main.js", f"/charon/getAvailable?prefix={found.place}"):
            status, headers, _body = found.ask(path)
            assert status == 200, path
            assert headers["Content-Security-Policy"] == POLICY
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in headers
    assert "http" not in POLICY.replace("https:", "http:")


def test_other_users_and_other_pages_cannot_read_tree(lab: ApiLab, copy: Path) -> None:
    with opened(lab, tree_of(lab), "--auspice", str(copy), "--print-url") as found:
        dataset = f"/charon/getDataset?prefix={found.place}"
        own = f"http://127.0.0.1:{found.port}"
        assert found.ask(dataset, Origin=own, Sec_Fetch_Site="same-origin")[0] == 200
        assert found.ask(dataset, Host=f"localhost:{found.port}")[0] == 200
        tree = found.place.rpartition("/")[2]
        for path in ("/", f"/{tree}", "/charon/getDataset", f"/charon/getDataset?prefix={tree}"):
            assert found.ask(path)[0] == 404, path
        assert found.ask(dataset + "x")[0] == 404
        assert found.ask("/dist/../package.json")[0] == 404
        assert found.ask("/dist/%2e%2e/package.json")[0] == 404
        for headers in (
            {"Host": "evil.example"},
            {"Host": f"evil.example:{found.port}"},
            {"Host": "[::"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Origin": f"http://127.0.0.1:{found.port + 1}"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            status, _headers, body = found.ask(dataset, **headers)
            assert (status, b"RCPHL" in body) == (403, False), headers
        listening = subprocess.run(
            ["ss", "-ltnH", f"sport = :{found.port}"], capture_output=True, text=True, check=True
        )
        assert {line.split()[3] for line in listening.stdout.splitlines()} == {
            f"127.0.0.1:{found.port}"
        }


def test_browser_gets_an_address_that_works_once(lab: ApiLab, copy: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" > {seen}.new && mv {seen}.new {seen}\n')
    program.chmod(0o755)
    process = zygote.start(
        ("phylo-trees", "open", tree_of(lab), "--auspice", str(copy), "-o", "json"),
        env={**os.environ, **lab.environment("member"), "BROWSER": f"{program} %s"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = re.search(r"http://[^\"]+", process.stdout.readline() + process.stdout.readline())
        assert printed is not None
        wait_for(seen.exists)
        first = seen.read_text().strip()
        assert urlsplit(first).path not in printed[0]
        place = urlsplit(printed[0]).path
        with closing(http.client.HTTPConnection("127.0.0.1", urlsplit(first).port or 0)) as browser:
            for expected in ((303, place), (410, None)):
                browser.request("GET", urlsplit(first).path)
                answer = browser.getresponse()
                answer.read()
                assert (answer.status, answer.headers["Location"]) == expected
    finally:
        process.kill()
        process.communicate()


# Its end


def test_ctrl_c_closes_server_and_leaves_no_process(lab: ApiLab, copy: Path) -> None:
    with opened(lab, tree_of(lab), "--auspice", str(copy), "--print-url") as found:
        found.ask(found.place)
        code, out, err = found.interrupt()
        assert (code, out) == (0, "")
        assert err.splitlines()[-1] == "Closed."
        with pytest.raises(ConnectionRefusedError):
            found.ask("/")
    left = subprocess.run(["pgrep", "-f", found.place], capture_output=True, check=False)
    assert left.stdout == b""


def test_for_closes_server_by_itself(lab: ApiLab, copy: Path) -> None:
    tree = tree_of(lab)
    ended = lab("phylo-trees", "open", tree, "--auspice", str(copy), "--print-url", "--for", "0s")
    assert ended.code == 0, ended.err
    assert f"Tree {tree} is open on 127.0.0.1" in ended.err
    assert ended.err.endswith("Closed.\n")
    assert ended.out.startswith("url\nhttp://127.0.0.1:")


# Failures


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("999999",), 6, "No such tree in group"),
        (("x",), 2, "Invalid value for 'TREE'"),
        (("1", "--for", "soon"), 2, "Invalid value for --for: 'soon'"),
        (("1", "--group", "nope"), 6, "nope"),
    ],
)
def test_open_reports_bad_input(
    lab: ApiLab, copy: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    ended = lab("phylo-trees", "open", *words, "--auspice", str(copy))
    assert (ended.code, ended.out) == (code, "")
    assert says in ended.err


def test_tree_of_other_group_is_not_opened(lab: ApiLab, copy: Path) -> None:
    other = tree_of(lab, "Bayside, overview", 2)
    ended = lab("phylo-trees", "open", other, "--auspice", str(copy))
    assert (ended.code, ended.out) == (6, "")


def test_missing_tree_file_is_reported(api_lab: ApiLab, aws: Cloud, copy: Path) -> None:
    tree = tree_of(api_lab)
    bucket, key = "genepi-db-data", "phylo_run/Redwood County/OVERVIEW/1/missing.json"
    with api_lab.service.database.begin() as session:
        moved = "UPDATE aspen.phylo_trees SET s3_key = :key WHERE entity_id = :tree"
        session.execute(sa.text(moved), {"key": key, "tree": int(tree)})
    ended = api_lab("phylo-trees", "open", tree, "--auspice", str(copy))
    assert (ended.code, ended.out) == (6, "")
    assert f"The file of tree {tree} no longer exists." in ended.err
    assert f"s3://{bucket}/{key}" in ended.err
    assert "files check --kind tree" in ended.err


def test_file_that_is_no_tree_is_reported(api_lab: ApiLab, aws: Cloud, copy: Path) -> None:
    tree = tree_of(api_lab)
    key = f"no-tree-{os.getpid()}.json"
    aws.client("s3").put_object(Bucket="genepi-db-data", Key=key, Body=b'{"version": "v1"}')
    with api_lab.service.database.begin() as session:
        moved = "UPDATE aspen.phylo_trees SET s3_key = :key WHERE entity_id = :tree"
        session.execute(sa.text(moved), {"key": key, "tree": int(tree)})
    ended = api_lab("phylo-trees", "open", tree, "--auspice", str(copy))
    assert (ended.code, ended.out) == (2, "")
    assert "not in Auspice's format" in ended.err


def test_expired_link_is_reported(
    api_lab: ApiLab, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aspen.api.trees._LIFETIME_S", -1)
    ended = api_lab("phylo-trees", "open", tree_of(api_lab), "--auspice", str(copy))
    assert (ended.code, ended.out) == (2, "")
    assert "This link has expired" in ended.err
    assert "run the command again" in ended.err


def test_unreachable_api_is_reported(lab: ApiLab, copy: Path) -> None:
    env = {"ASPEN_API": "http://127.0.0.1:9"}
    ended = lab("phylo-trees", "open", "1", "--group", "1", "--auspice", str(copy), env=env)
    assert (ended.code, ended.out) == (5, "")
    assert "connection refused" in ended.err


# Auspice


def path_with(folder: Path, npm: str | None) -> dict[str, str]:
    """Return an environment in which npm is a script, or is not installed."""
    folder.mkdir()
    for name in ("sh", "cat", "sleep", "cp"):
        (folder / name).symlink_to(str(shutil.which(name)))
    if npm is not None:
        (folder / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (folder / "npm").chmod(0o755)
    return {"PATH": str(folder)}


@pytest.mark.parametrize(
    ("npm", "words", "says"),
    [
        (None, ("--yes",), "is not on this machine, and neither is npm."),
        ("exit 0", (), "Pass --yes to fetch it."),
        (
            "echo 'npm error code ENOTFOUND' >&2; echo 'npm error network failed' >&2; exit 1",
            ("--yes",),
            "npm could not fetch auspice@3.0.0: code ENOTFOUND network failed",
        ),
        ("echo x > auspice-3.0.0.tgz", ("--yes",), "its checksum differs. It was discarded."),
        ("exit 0", ("--yes",), "its checksum differs. It was discarded."),
    ],
)
def test_without_auspice_nextstrain_address_is_printed(
    lab: ApiLab,
    aspen_home: Path,
    tmp_path: Path,
    npm: str | None,
    words: tuple[str, ...],
    says: str,
) -> None:
    tree = tree_of(lab)
    env = path_with(tmp_path / "bin", npm)
    ended = lab("phylo-trees", "open", tree, *words, env=env)
    assert ended.code == 0, ended.err
    host = lab.service.url.removeprefix("http://")
    path = "/v2/orgs/1/pathogens/SC2/auspice/access/"
    assert ended.out.startswith(f"url\nhttps://nextstrain.org/fetch/{host}{path}")
    assert says in ended.err
    assert "npm pack auspice@3.0.0" in ended.err
    assert "Anyone with this link" in ended.err
    assert "cannot reach an API on this machine" in ended.err
    assert not (aspen_home / "cache" / PACKAGE_FILE).exists()


def test_auspice_is_fetched_once_and_verified_each_time(
    lab: ApiLab, aspen_home: Path, tmp_path: Path, package: Path
) -> None:
    words = ("phylo-trees", "open", tree_of(lab), "--print-url", "--for", "0s")
    env = path_with(tmp_path / "bin", f"cp {package} . && echo ran >> {tmp_path / 'ran'}")
    first = lab(*words, "--yes", env=env)
    assert first.code == 0, first.err
    assert "Fetching Auspice 3.0.0 (9.5 MB, license AGPL-3.0) with npm." in first.err
    assert first.out.startswith("url\nhttp://127.0.0.1:")
    kept = aspen_home / "cache" / PACKAGE_FILE
    assert kept.read_bytes() == package.read_bytes()
    assert kept.stat().st_mode & 0o777 == 0o600
    again = lab(*words, env=env)
    assert again.out.startswith("url\nhttp://127.0.0.1:")
    assert (tmp_path / "ran").read_text() == "ran\n"
    with kept.open("r+b") as file:
        file.seek(5_000)
        file.write(b"changed")
    assert lab(*words, env=env).out.startswith("url\nhttps://nextstrain.org/")
    assert lab(*words, "--yes", env=env).out.startswith("url\nhttp://127.0.0.1:")
    assert (tmp_path / "ran").read_text() == "ran\nran\n"


def test_auspice_is_fetched_only_after_consent(
    lab: ApiLab, aspen_home: Path, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    env = path_with(tmp_path / "bin", f"echo ran > {ran}")
    process = zygote.at_terminal(
        ("phylo-trees", "open", tree_of(lab)),
        env={**os.environ, **lab.environment("member"), **env, "TERM": "dumb"},
        encoding="utf-8",
        timeout=60,
        dimensions=(50, 200),
    )
    process.expect(r"Fetch it with npm into .*\[y/N\]")
    process.sendline("n")
    process.expect("nextstrain.org/fetch/")
    process.close(force=True)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["dist", "."])
def test_own_copy_of_auspice_can_be_a_folder(lab: ApiLab, copy: Path, name: str) -> None:
    words = (tree_of(lab), "--auspice", str(copy / name), "--print-url")
    with opened(lab, *words) as found:
        assert found.ask(found.place)[2] == b"<title>a stand-in</title>"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "No copy of Auspice found"),
        (lambda path: path.mkdir(), "No copy of Auspice found"),
        (lambda path: (path / "dist").mkdir(parents=True), "No copy of Auspice found"),
        (lambda path: path.write_bytes(b"x"), "its checksum differs"),
    ],
)
def test_own_copy_that_is_not_auspice_is_reported(
    lab: ApiLab, tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / "given")
    words = ("phylo-trees", "open", tree_of(lab), "--auspice", str(tmp_path / "given"))
    ended = lab(*words)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_hanging_npm_is_ended(lab: ApiLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auspice, "_PATIENCE_S", 0.5)
    pid = tmp_path / "pid"
    env = path_with(tmp_path / "bin", f"sleep 600 & echo $! > {pid}; wait")
    ended = lab("phylo-trees", "open", tree_of(lab), "--yes", env=env)
    assert ended.out.startswith("url\nhttps://nextstrain.org/")
    assert "npm did not fetch auspice@3.0.0" in ended.err
    wait_for(lambda: not start_of(int(pid.read_text())))
