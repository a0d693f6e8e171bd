"""The whole deployment: real processes that are killed, hang, are interrupted, or collide."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import httpx
import pexpect
import psutil
import pytest

from aspen.local import processes
from aspen.local import supervision as client
from aspen.local.aws.content import REGION, made_values, read_credentials
from aspen.local.deployment import Deployment, service_status, with_restarts
from aspen.local.processes import HOST, file_lock, is_free
from aspen.local.services import POSTGRES, PartStatus, installed_parts
from aspen.local.services import Phase as Doing
from aspen.local.state import DeploymentFiles, Timing
from aspen.local.supervision import PortTakenError, Supervision
from aspencli.errors import AspenError
from tests import zygote
from tests.browsing import driven, needs_chromium
from tests.cli.commands.people_lab import texts_below
from tests.local import stranger
from tests.local.auth0.lab import Identity, submit
from tests.local.conftest import FAST, Script, end_home, make_home, root_only

# A service that waits for a busy machine does not count as hung.
QUICK = Timing(pause=0.2, check=0.2, hung=8.0, answer=4.0, stop=5.0, watch=0.1)
ONE = ("identity",)  # the service that starts fastest


def deployment_in(home: Path) -> Deployment:
    return Deployment(home, settings=FAST, timing=QUICK)


@pytest.fixture
def home() -> Iterator[Path]:
    home = make_home("a home")  # with a space in it
    yield home
    Deployment(home).reset()
    end_home(home)


@pytest.fixture
def new_deployment(home: Path) -> Deployment:
    return deployment_in(home)


@pytest.fixture
def deployment(begun: Path) -> Deployment:
    return deployment_in(begun)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Yield the deployment with all parts running, for tests that leave it that way."""
    home = make_home("data")  # so that commands find it under ASPEN_HOME
    whole = deployment_in(home)
    try:
        # Two deployments that choose ports at the same moment may choose the same ones.
        with file_lock(tmp_path_factory.getbasetemp().parent / "whole.lock"):
            up = whole.up()
        assert set(up.started) == set(installed_parts())
        assert up.filled
        assert up.filled.samples == 1025
        yield whole
    finally:
        whole.reset()
        end_home(home)


@pytest.fixture(scope="module", autouse=True)
def _forked() -> Iterator[None]:
    """Fork supervisors and their services, except those that a command starts."""
    with pytest.MonkeyPatch.context() as patch:
        spawn = SimpleNamespace(**{**vars(processes), "spawn_detached": zygote.spawn_detached})
        patch.setattr(client, "processes", spawn)
        yield
    zygote.wait_for_detached()


@contextlib.contextmanager
def provider_of(deployment: Deployment) -> Iterator[Identity]:
    """Yield the deployment's identity provider, as a user reaches it."""
    folder, port = deployment.state.part("identity"), part(deployment, "identity").port
    provider = Identity(folder, port=port)
    with provider.http:
        yield provider


def eventually(condition: Callable[[], bool], seconds: float = 120) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)  # the status of all parts takes 0.03 s of work
    return True


def part(deployment: Deployment, name: str) -> PartStatus:
    """Return the status of one part, without adding up the size of the database for a service."""
    if name == POSTGRES:
        return with_restarts(deployment.cluster.status(), deployment.supervision)
    status = service_status(deployment.state, deployment.supervision, name)
    return with_restarts(status, deployment.supervision)


def processes_of(home: Path) -> list[str]:
    """Return every process with the home in its command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if str(home) in words and process.pid != os.getpid() and "psutil" not in words:
            found.append(f"{process.pid} {words}")
    return found


# Up


def test_every_part_is_running_and_responds(whole: Deployment) -> None:
    statuses = whole.status()
    assert [one.name for one in statuses] == list(installed_parts())
    assert {one.state for one in statuses} == {Doing.RUNNING}
    for one in statuses[1:]:
        assert one.url == f"http://{HOST}:{one.port}"
    api = part(whole, "api").url
    assert httpx.get(f"{api}/v2/health/").json() == {"healthy": True}
    assert httpx.get(f"{api}/v2/docs").is_success


def test_repeated_up_changes_nothing(whole: Deployment) -> None:
    before = {one.name: one.pid for one in whole.status()}
    again = whole.up()
    assert not again.changed
    assert {name: one.pid for name, one in again.started.items()} == before


def sign_in(deployment: Deployment, email: str) -> str:
    """Sign in on the command line as a user, and return its messages."""

    def approve(code: str) -> None:
        with provider_of(deployment) as provider:
            provider.decide(code, email)

    return sign_in_with(approve)


def sign_in_with(approve: Callable[[str], None]) -> str:
    """Sign in on the command line with a code that something approves; return the messages."""
    words = ["auth", "login", "--no-browser", "--store", "file"]
    with zygote.start(words, stderr=subprocess.PIPE, text=True) as login:
        assert login.stderr
        code = ""
        while not code:
            found = re.search(r"[A-Z]{4}-[A-Z]{4}", login.stderr.readline())
            code = found[0] if found else ""
        approve(code)
        said = str(login.stderr.read())
    assert login.returncode == 0, said
    return said


@pytest.fixture
def signed_out(whole: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let commands find the deployment, and sign out at the end."""
    monkeypatch.setenv("ASPEN_HOME", str(whole.state.home.parent))
    yield
    aspencli("auth", "logout")


@pytest.mark.usefixtures("signed_out")
def test_operator_can_sign_in_to_local_deployment(whole: Deployment) -> None:
    assert "Signed in to local as Mo Multi" in sign_in(whole, "multi@example.org")
    status = aspencli("auth", "status", "-o", "json")
    (row,) = json.loads(status.stdout)
    roles = {group["id"]: group["roles"] for group in row["groups"]}
    assert roles == {1: ["member"], 2: ["admin"]}


@pytest.mark.usefixtures("signed_out")
def test_newcomer_follows_mailed_invitation_signs_up_and_signs_in(whole: Deployment) -> None:
    api, email = part(whole, "api").url, "guest@example.org"
    sign_in(whole, "gadmin@example.org")
    words = ["groups", "invite", "--group", "1", "--role", "viewer", email, "--yes"]
    invited = aspencli(*words)
    assert invited.returncode == 0, invited.stderr
    (mail,) = json.loads(aspencli("local", "mail", "--to", email, "-o", "json").stdout)
    assert mail["subject"] == "Invitation to join Redwood County Public Health Laboratory"
    assert mail["link"].startswith(f"{api}/v2/auth/login?")
    with provider_of(whole) as provider, provider.client() as browser:
        page = browser.get(mail["link"])
        assert "Join Redwood County Public Health Laboratory" in page.text
        submit(browser, page, name="Gus Guest")
        me = browser.get(f"{api}/v2/users/me").json()
    assert me["name"] == "Gus Guest"
    assert [(group["id"], group["roles"]) for group in me["groups"]] == [(1, ["viewer"])]
    aspencli("auth", "logout")
    assert "Signed in to local as Gus Guest" in sign_in(whole, email)
    (shown,) = json.loads(aspencli("users", "me", "-o", "json").stdout)
    assert (shown["id"], shown["name"]) == (me["id"], "Gus Guest")


def onboard_unknown(email: str, *words: str) -> None:
    """Onboard somebody whom neither side knows as a viewer of group 1."""
    assert aspencli("users", "show", email).returncode == 6
    person = ("users", "onboard", email, "--name", "Nell Newcomer", "--group", "1")
    ended = aspencli(*person, "--role", "viewer", "--yes", "-o", "json", *words)
    assert ended.returncode == 0, ended.stderr
    (row,) = json.loads(ended.stdout)
    parts = {key: row[key] for key in ("account", "membership", "user", "invitation")}
    assert parts == dict.fromkeys(parts, "created")


def viewer_in(page: Any, api: str) -> dict[str, Any]:
    """Return the service's answer to who is signed in, after checking that it is a viewer."""
    page.goto(f"{api}/v2/users/me")
    me = json.loads(page.locator("body").inner_text())
    assert me["name"] == "Nell Newcomer"
    assert [(group["id"], group["roles"]) for group in me["groups"]] == [(1, ["viewer"])]
    read, deleted, other = page.evaluate(
        """async () => Promise.all([
            fetch('/v2/orgs/1/pathogens/SC2/samples/'),
            fetch('/v2/orgs/1/pathogens/SC2/samples/1', {method: 'DELETE'}),
            fetch('/v2/orgs/2/pathogens/SC2/samples/'),
        ].map(asked => asked.then(answer => answer.status)))"""
    )
    assert (read, deleted, other) == (200, 404, 403)  # none that a viewer may delete is found
    return dict(me)


@needs_chromium
@pytest.mark.usefixtures("signed_out")
def test_onboarded_newcomer_follows_mailed_link_in_browser_and_signs_in(
    whole: Deployment, tmp_path: Path
) -> None:
    api, email = part(whole, "api").url, "nell@department.example.org"
    onboard_unknown(email)
    (mail,) = json.loads(aspencli("local", "mail", "--to", email, "-o", "json").stdout)
    assert mail["subject"] == "Invitation to join Redwood County Public Health Laboratory"
    with driven() as browser:
        page = browser.new_page(viewport={"width": 400, "height": 700})
        page.goto(mail["link"])
        assert page.get_by_role("heading").inner_text() == (
            "Join Redwood County Public Health Laboratory"
        )
        assert email in page.locator("main").inner_text()
        page.screenshot(path=tmp_path / "invitation.png")
        with page.expect_response(lambda answer: "/v2/auth/callback" in answer.url) as answered:
            page.get_by_role("button", name="Accept invitation").click()
        assert answered.value.status == 307
        me = viewer_in(page, str(api))

        def approve(code: str) -> None:
            page.goto(f"{part(whole, 'identity').url}/activate?user_code={code}")
            assert page.locator("p.code").inner_text() == code
            page.get_by_role("button", name="Approve").click()
            page.wait_for_url("**/activate/done?*")

        assert "Signed in to local as Nell Newcomer" in sign_in_with(approve)
    (shown,) = json.loads(aspencli("users", "me", "-o", "json").stdout)
    assert (shown["id"], shown["name"]) == (me["id"], "Nell Newcomer")
    # Whoever has signed in needs no other invitation.
    again = aspencli(
        *("users", "onboard", email, "--group", "1", "--role", "viewer", "--yes", "-o", "json")
    )
    assert json.loads(again.stdout)[0]["outcome"] == "unchanged"
    mails = json.loads(aspencli("local", "mail", "--to", email, "-o", "json").stdout)
    assert len(mails) == 1


@needs_chromium
@pytest.mark.usefixtures("signed_out")
def test_onboarded_newcomer_sets_password_by_link_in_browser(whole: Deployment) -> None:
    api, email = part(whole, "api").url, "nils@department.example.org"
    person = ("users", "onboard", email, "--name", "Nell Newcomer", "--group", "1")
    child = zygote.at_terminal(
        (*person, "--role", "viewer", "--ticket"),
        env={**os.environ, "TERM": "dumb"},
        encoding="utf-8",
        timeout=120,
        dimensions=(50, 300),
    )
    child.expect(r"\[y/N\]")
    child.sendline("y")
    child.expect(r"(http\S+ticket=\S+)")
    link = child.match[1]
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert json.loads(aspencli("local", "mail", "--to", email, "-o", "json").stdout) == []
    with driven() as browser:
        page = browser.new_page()
        page.goto(link)
        page.get_by_label("New password").fill("a long one")
        page.get_by_label("Repeat the password").fill("a long one")
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Your password is set").wait_for()
        page.goto(f"{api}/v2/auth/login")
        page.get_by_label("Another user").fill(email)
        with page.expect_response(lambda answer: "/v2/auth/callback" in answer.url):
            page.get_by_role("button", name="Continue").click()
        viewer_in(page, str(api))
    assert link not in texts_below(whole.state.home.parent / "state")


def test_deployment_secrets_are_readable_by_owner_only(whole: Deployment) -> None:
    kept = [*whole.state.part("aws").glob("*.json"), *whole.state.folder.glob("*.json")]
    assert len(kept) >= 4
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}
    assert whole.state.folder.stat().st_mode & 0o077 == 0


STRANGER = 54_321  # an account that owns nothing here; it needs no name


@root_only
def test_other_account_cannot_read_secrets_or_run_code(whole: Deployment) -> None:
    statuses = whole.status()
    told = {
        "ports": {one.name: one.port for one in statuses},
        "home": str(whole.state.home),
        "pids": [one.pid for one in statuses],
    }
    done = subprocess.run(
        [sys.executable, str(Path(stranger.__file__)), str(STRANGER)],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        check=True,
    )
    tried = json.loads(done.stdout)
    assert len(tried["other"]) >= 30
    got = {
        who: [what for what, came in every if came.startswith(stranger.GOT)]
        for who, every in tried.items()
    }
    assert got["other"] == []
    assert any("/oauth/device/code" in what for what in got["own"])  # the attempts are real ones
    assert any("read a file" in what for what in got["own"])
    names = [*whole.cluster.passwords().values(), *made_values(whole.state.part("aws")).values()]
    names.append(read_credentials(whole.state.part("aws")).secret)
    shown = [Path(f"/proc/{pid}/cmdline").read_text() for pid in told["pids"]]
    assert not [name for name in names for line in (*shown, str(tried["other"])) if name in line]
    assert fetch_tree(whole)["version"] == "v2"  # nothing was reset


def test_tree_file_is_stored_in_s3(whole: Deployment) -> None:
    assert fetch_tree(whole)["version"] == "v2"


def client_of(service: str, deployment: Deployment) -> Any:
    credentials = read_credentials(deployment.state.part("aws"))
    return boto3.client(
        service,
        endpoint_url=part(deployment, "aws").url,
        region_name=REGION,
        aws_access_key_id=credentials.key,
        aws_secret_access_key=credentials.secret,
    )


def fetch_tree(deployment: Deployment) -> dict[str, object]:
    bucket, key, _ = next(one for one in deployment.objects if one[1].startswith("phylo_runs/"))
    s3 = client_of("s3", deployment)
    return dict(json.load(s3.get_object(Bucket=bucket, Key=key)["Body"]))


# Parts that end unexpectedly


@pytest.mark.parametrize("name", ["aws", "identity", "api"])
def test_killed_service_is_restarted_and_reported(whole: Deployment, name: str) -> None:
    before = part(whole, name)
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    assert eventually(lambda: part(whole, name).restarts == before.restarts + 1)
    assert eventually(lambda: part(whole, name).runs)
    after = part(whole, name)
    assert after.pid != before.pid
    assert (after.port, after.reason) == (before.port, "terminated by SIGKILL")
    assert after.last_restart
    assert time.time() - after.last_restart < 60
    if name == "aws":  # filled again
        assert fetch_tree(whole)["version"] == "v2"


def test_killed_postgresql_is_restarted_and_reported(whole: Deployment) -> None:
    before = part(whole, "postgres")
    assert before.pid
    os.kill(before.pid, signal.SIGKILL)
    assert eventually(lambda: part(whole, "postgres").restarts == before.restarts + 1)
    after = part(whole, "postgres")
    assert after.runs
    assert (after.port, after.reason) == (before.port, "main process exited")
    assert not whole.up().changed  # whether or not the API has noticed the restart


def test_services_restart_when_postgresql_moves_to_another_port(whole: Deployment) -> None:
    database, supervisor = part(whole, "postgres"), whole.supervision.process
    assert database.pid
    assert database.port
    assert supervisor
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(database.pid, signal.SIGKILL)
    assert eventually(lambda: is_free(database.port or 0))
    with socket.create_server((HOST, database.port)):
        os.kill(supervisor.pid, signal.SIGCONT)
        moved = "PostgreSQL moved to another port"
        for name in ("aws", "api"):
            assert eventually(lambda name=name: part(whole, name).reason == moved)  # type: ignore[misc]
        assert not whole.up().prepared
    assert part(whole, "postgres").port != database.port
    content = json.loads((whole.state.part("aws") / "content.json").read_text())
    address = content["secrets"]["genepi-config"]["DB_address"]
    assert address == f"{HOST}:{part(whole, 'postgres').port}"


def test_hung_service_is_restarted_and_reported(whole: Deployment) -> None:
    before = part(whole, "identity")
    assert before.pid
    os.kill(before.pid, signal.SIGSTOP)
    assert eventually(lambda: part(whole, "identity").state is Doing.UNRESPONSIVE)
    assert eventually(lambda: part(whole, "identity").restarts == before.restarts + 1)
    assert eventually(lambda: part(whole, "identity").runs)
    assert "no response for" in part(whole, "identity").reason


def test_service_that_recovers_is_not_restarted(whole: Deployment) -> None:
    before = part(whole, "identity")
    assert before.pid
    os.kill(before.pid, signal.SIGSTOP)
    assert eventually(lambda: part(whole, "identity").state is Doing.UNRESPONSIVE)
    waking = threading.Timer(1.5, os.kill, (before.pid, signal.SIGCONT))
    waking.start()
    up = whole.up()
    waking.join()
    assert not up.changed
    assert up.started["identity"].pid == before.pid


def test_status_and_logs_commands_report_restart(
    whole: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASPEN_HOME", str(whole.state.home.parent))
    killed = part(whole, "identity")
    assert killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    assert eventually(lambda: part(whole, "identity").restarts > killed.restarts)
    assert eventually(lambda: all(one.runs for one in whole.status()))
    shown = aspencli("local", "status", "--check", "-o", "json")
    assert shown.returncode == 0, shown.stderr
    told = {row["part"]: row for row in json.loads(shown.stdout)}
    assert told["identity"]["restarts"] == killed.restarts + 1
    assert told["identity"]["reason"] == "terminated by SIGKILL"
    assert re.search(
        r"identity restarted .*, most recently at 20.*: terminated by SIGKILL", shown.stderr
    )
    logs = aspencli("local", "logs", "supervisor", "-n", "50").stdout
    assert "identity: terminated by SIGKILL" in logs
    everybody = aspencli("local", "logs", "-n", "100000").stdout
    assert re.search(r"^postgres +\| .*listening on", everybody, re.MULTILINE)
    assert re.search(r"^api +\| .*Uvicorn running on", everybody, re.MULTILINE)
    assert not re.search(r"GET /v2/health/\S* HTTP", everybody)  # our own health checks
    times = re.findall(r"^\w+ +\| (20\S+ \S+) UTC", everybody, re.MULTILINE)
    assert len(times) > 10
    assert times == sorted(times)


def aspencli(*words: str) -> subprocess.CompletedProcess[str]:
    return zygote.run_text(words, env=os.environ)


# The supervisor


def test_services_end_with_killed_supervisor_and_next_up_recovers(
    deployment: Deployment, home: Path
) -> None:
    first = deployment.up(ONE)
    supervisor = deployment.supervision.process
    assert supervisor
    os.kill(supervisor.pid, signal.SIGKILL)
    assert eventually(lambda: not psutil.pid_exists(first.started["identity"].pid))
    status = part(deployment, "identity")
    assert (status.state, status.reason) == (Doing.CRASHED, "supervisor exited")
    again = deployment.up(ONE)
    assert again.started["postgres"].already_running
    assert again.started["identity"].port == first.started["identity"].port
    assert part(deployment, "identity").runs
    down = deployment.down()
    assert down["identity"].was_running
    assert processes_of(home) == []


def test_up_recovers_when_supervisor_is_killed_meanwhile(deployment: Deployment) -> None:
    deployment.up(ONE)
    supervisor = deployment.supervision.process
    assert supervisor
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(deployment.status()[2].pid or 0, signal.SIGKILL)
    killer = threading.Timer(0.5, os.kill, (supervisor.pid, signal.SIGKILL))
    killer.start()
    deployment.up(ONE)
    killer.join()
    assert deployment.supervision.process != supervisor
    assert part(deployment, "identity").runs


def test_down_kills_frozen_service_of_killed_supervisor(deployment: Deployment, home: Path) -> None:
    pid = deployment.up(ONE).started["identity"].pid
    supervisor = deployment.supervision.process
    assert supervisor
    os.kill(pid, signal.SIGSTOP)
    os.kill(supervisor.pid, signal.SIGKILL)
    assert deployment.down()["identity"].how == "killed"
    assert processes_of(home) == []


def test_down_does_not_signal_process_with_reused_pid(deployment: Deployment) -> None:
    deployment.up(ONE)
    deployment.down()
    record = json.loads(deployment.state.record.read_text())
    with subprocess.Popen(["sleep", "60"]) as other:
        record["identity"]["process"] = {"pid": other.pid, "born": "long ago"}
        record["identity"]["phase"] = "running"
        deployment.state.record.write_text(json.dumps(record))
        assert not deployment.down()["identity"].was_running
        assert deployment.up(ONE).changed
        assert other.poll() is None
        other.kill()


def test_down_stops_frozen_supervisor(deployment: Deployment, home: Path) -> None:
    deployment.up(ONE)
    supervisor = deployment.supervision.process
    assert supervisor
    os.kill(supervisor.pid, signal.SIGSTOP)
    assert deployment.down()["identity"].was_running
    assert processes_of(home) == []


def test_down_leaves_no_processes_and_frees_ports(deployment: Deployment, home: Path) -> None:
    started = deployment.up(ONE).started
    stopped = deployment.down()
    assert [*stopped][-1] == "postgres"
    assert {name: one.how for name, one in stopped.items() if one.was_running} == {
        "identity": "fast",
        "postgres": "fast",
    }
    assert processes_of(home) == []
    assert all(is_free(one.port) for one in started.values())
    assert part(deployment, "identity").state is Doing.STOPPED
    assert not any(one.was_running for one in deployment.down().values())


def test_supervisor_exits_when_state_folder_is_deleted(deployment: Deployment, home: Path) -> None:
    pid = deployment.up(ONE).started["identity"].pid
    deployment.state.alive.unlink()
    assert eventually(lambda: not psutil.pid_exists(pid))


def test_up_can_add_parts_to_running_deployment(deployment: Deployment) -> None:
    deployment.up(("postgres",))
    assert deployment.supervision.process is None
    assert deployment.status()[0].runs
    up = deployment.up(ONE)
    assert up.started["postgres"].already_running
    assert deployment.up(("aws",)).started["aws"].pid
    assert {one.name for one in deployment.status() if one.runs} == {"postgres", "aws", "identity"}


# Failed starts


def test_failed_start_of_part_shows_its_output(deployment: Deployment, home: Path) -> None:
    home.joinpath("identity").write_text("no folder")
    with pytest.raises(AspenError, match="Cannot start identity") as caught:
        deployment.up(ONE)
    assert "aspencli local logs identity" in str(caught.value.hint)
    assert any("identity" in line for line in caught.value.details)
    assert deployment.supervision.process is None
    assert deployment.status()[0].runs  # PostgreSQL runs without it
    home.joinpath("identity").unlink()
    deployment.up(ONE)
    assert part(deployment, "identity").runs


def test_up_avoids_and_reports_port_used_by_another_program(deployment: Deployment) -> None:
    port = deployment.up(ONE).started["identity"].port
    deployment.down()
    with socket.create_server((HOST, port)):
        moved = deployment.up(ONE).started
        assert moved["identity"].port != port
        assert f"Port {port} is in use by another program" in " ".join(moved["postgres"].notes)
        deployment.down()
    assert deployment.up(ONE).started["identity"].port == moved["identity"].port


def test_next_up_moves_service_whose_port_was_taken_while_down(
    deployment: Deployment,
) -> None:
    started = deployment.up(ONE).started["identity"]
    supervisor = deployment.supervision.process
    assert supervisor
    os.kill(supervisor.pid, signal.SIGSTOP)
    os.kill(started.pid, signal.SIGKILL)
    assert eventually(lambda: is_free(started.port))
    with socket.create_server((HOST, started.port)):
        os.kill(supervisor.pid, signal.SIGCONT)
        taken = f"port {started.port} is in use by another program"
        assert eventually(lambda: part(deployment, "identity").reason == taken)
        assert not part(deployment, "identity").runs
        up = deployment.up(ONE)
    assert up.started["identity"].port != started.port
    assert part(deployment, "identity").runs


def test_up_retries_when_port_is_taken_at_last_moment(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = deployment.up(ONE).started["identity"].port
    deployment.down()
    choose, calls = DeploymentFiles.choose_ports, list[int]()

    def late(state: DeploymentFiles, *arguments: object) -> list[str]:
        calls.append(1)
        return [] if len(calls) == 1 else choose(state, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DeploymentFiles, "choose_ports", late)
    with socket.create_server((HOST, port)):
        up = deployment.up(ONE)
    assert up.started["identity"].port != port
    assert part(deployment, "identity").runs
    assert len(calls) == 2


def test_up_with_two_attempts_reports_results_of_both(
    new_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, calls = Supervision.wait, list[int]()

    def late(client: Supervision, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 1:  # once the test data exist
            raise PortTakenError("another program took the port of api")
        wait(client, *arguments)

    monkeypatch.setattr(Supervision, "wait", late)
    up = new_deployment.up(("api",))
    assert len(calls) == 2
    assert up.prepared
    assert up.filled
    assert up.filled.samples == 1025


_UP = """
from aspen.local.deployment import Deployment, service_status, with_restarts
from aspen.local.state import Timing
deployment = Deployment(Path(sys.argv[1]), settings={FAST!r})
"""


def test_concurrent_up_starts_each_part_once(home: Path, run_script: Script) -> None:
    script = _UP.replace("{FAST!r}", repr(FAST)) + (
        "up = deployment.up(('identity',))\n"
        "print(up.started['identity'].pid, up.started['identity'].already_running)"
    )
    both = [run_script(home, script), run_script(home, script)]
    ended = [one.communicate(timeout=120) for one in both]
    (first, was_first), (second, was_second) = (out.split() for out, _ in ended)
    assert first == second, ended
    assert {was_first, was_second} == {"True", "False"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up_leaves_no_processes(aspen_home: Path, number: signal.Signals) -> None:
    home = aspen_home / "data"
    state = DeploymentFiles(home)
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "aspencli", "local", "up"], stderr=subprocess.PIPE, text=True
        ) as child:
            assert eventually(lambda: state.record.exists() and '"pid"' in state.record.read_text())
            child.send_signal(number)
            _, said = child.communicate(timeout=60)
        assert child.returncode == 128 + number, said
        assert processes_of(home) == []
        assert "Traceback" not in said
    finally:
        Deployment(home).reset()


def test_killed_up_is_completed_by_next_up(home: Path, run_script: Script) -> None:
    deployment = deployment_in(home)
    child = run_script(home, _UP.replace("{FAST!r}", repr(FAST)) + "deployment.up(('identity',))")
    assert eventually(lambda: deployment.supervision.process is not None)
    child.kill()
    child.wait()
    up = deployment.up(ONE)
    assert up.started["identity"].pid
    assert {one.name for one in deployment.status() if one.runs} == {"postgres", "identity"}


def test_interrupted_test_data_are_completed_by_next_up(deployment: Deployment) -> None:
    deployment.up(("postgres",))
    from aspen.database.engine import Database
    from aspen.local.seed import seed_base

    database = Database(deployment.cluster.url(), application_name="tests", writable=True)
    seed_base(database)
    database.dispose()
    deployment.state.make()
    deployment.state.filling.touch()  # as a killed start leaves it
    filled = deployment.up().filled
    assert filled
    assert (filled.groups, filled.samples) == (0, 1025)
    assert deployment.up().filled is None


@root_only
def test_ordinary_user_can_start_deployment(home: Path, run_script: Script) -> None:
    mine = home / "nobody"
    mine.mkdir()
    mine.chmod(0o777)
    script = _UP.replace("{FAST!r}", repr(FAST)) + (
        "up = deployment.up(('identity',))\n"
        "print(os.getuid(), [one.state.value for one in deployment.status()][::2])\n"
        "deployment.down()"
    )
    preload = (
        "import aspen.local.deployment, aspen.local.postgres.server, aspen.local.postgres.prepare\n"
        "import aspen.local.seed, aspen.database.engine\n"
    )
    out, err = run_script(mine / "home", preload + script, as_nobody=True).communicate(timeout=120)
    if "ModuleNotFoundError" in err or "Permission denied" in err:
        pytest.skip("the interpreter lies where nobody else can read")
    assert "['running', 'running']" in out, err
    assert not out.startswith("0 ")


def test_missing_package_is_named_with_install_hint(
    new_deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "aspen.local.services.find_spec", lambda name: None if name == "moto" else name
    )
    with pytest.raises(AspenError, match="not installed: moto") as caught:
        new_deployment.up()
    assert "aspencli[local]" in str(caught.value.hint)
    assert "--only postgres" in str(caught.value.hint)
    assert new_deployment.supervision.process is None
