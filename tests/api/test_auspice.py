"""Links that open one tree and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from itsdangerous import TimestampSigner

from aspen.api.trees import MagicLink, nodes
from aspen.database.engine import Database
from aspen.database.models import Group, PhyloTree, Role, Sample, User, UserRole
from tests.api.conftest import Api, ApiFactory, Cloud

GENERATE = "/v2/orgs/1/pathogens/SC2/auspice/generate"


@pytest.fixture
def lab(make_api: ApiFactory, roles: Database, aws: Cloud) -> Api:
    return make_api(roles, **aws.settings)


def trees_of(api: Api, group: int) -> list[int]:
    with api.database.reading() as session:
        query = sa.select(PhyloTree.entity_id).where(PhyloTree.group_id == group)
        return list(session.scalars(query.order_by(PhyloTree.entity_id)))


def link_to(api: Api, tree: int, principal: str = "member", group: int = 1) -> str:
    path = f"/v2/orgs/{group}/auspice/generate"
    answer = api("POST", path, principal, json={"tree_id": tree})
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["url"]
    assert "://" not in url
    host, slash, rest = url.partition("/")
    assert f"http://{host}" == api.url
    return slash + rest


def shown(api: Api, path: str) -> dict[str, Any]:
    answer = api("GET", path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json()
    return {node["name"]: node for node in nodes(document)}


def test_auspice_link_shows_own_samples_by_private_identifier(lab: Api) -> None:
    tree = trees_of(lab, 1)[0]
    found = shown(lab, link_to(lab, tree))
    with lab.database.reading() as session:
        own = session.scalars(
            sa.select(Sample).join(Sample.phylo_trees).where(PhyloTree.entity_id == tree)
        ).all()
        assert len(own) > 5
        for sample in own:
            node = found[sample.private_identifier]
            public = sample.public_identifier.removeprefix("hCoV-19/")
            assert node["GISAID_ID"] == public
            assert public not in found
    assert "USA/WA-CTX-1/2020" in found  # another group's sample keeps its name


def test_auspice_link_of_another_group_shows_public_identifiers(lab: Api) -> None:
    tree = trees_of(lab, 1)[0]
    found = shown(lab, link_to(lab, tree, "g2admin", group=2))
    assert not any("GISAID_ID" in node for node in found.values())


def test_auspice_link_opens_only_its_tree(lab: Api) -> None:
    first, second = trees_of(lab, 1)[:2]
    path = link_to(lab, first)
    link = path.rpartition("/")[2]
    for other in ("/v2/users/me", "/v2/pathogens/", "/v2/orgs/1/usher/tree_versions/"):
        assert lab("GET", f"{other}?magic_link={link}").status_code == 401
        assert lab("GET", other, headers={"Authorization": f"Bearer {link}"}).status_code == 401
        assert lab("GET", other, headers={"Cookie": f"session={link}"}).status_code == 401
    assert lab("GET", path).json()["meta"] != lab("GET", link_to(lab, second)).json()["meta"]


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link[:-9] + ("A" if link[-9] != "A" else "B") + link[-8:],
        lambda link: ("A" if link[0] != "A" else "B") + link[1:],
        lambda link: link.replace(".", "", 1),
        lambda link: link.partition(".")[0],
        lambda _: "x",
        lambda _: "..",
        lambda _: "%00",
        lambda _: "🦠",
    ],
)
def test_tampered_auspice_link_is_rejected(lab: Api, change: Any) -> None:
    start, _, link = link_to(lab, trees_of(lab, 1)[0]).rpartition("/")
    answer = lab("GET", f"{start}/{change(link)}")
    assert answer.status_code in {400, 404}
    if answer.status_code == 400:
        assert answer.json()["error"].startswith("Unauthenticated attempt")


def test_auspice_link_is_valid_only_for_its_group(lab: Api) -> None:
    path = link_to(lab, trees_of(lab, 1)[0], "multi")
    assert lab("GET", path.replace("/orgs/1/", "/orgs/2/")).status_code == 400
    assert lab("GET", f"{path}?group_id=2").status_code == 400
    assert lab("GET", path.replace("/pathogens/SC2", "")).status_code == 200


def test_auspice_link_expires_after_one_week(lab: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = trees_of(lab, 1)[0]
    with lab.database.reading() as session:
        user = session.scalars(sa.select(User.id).where(User.auth0_user_id == "auth0|member")).one()

    def aged(days: float) -> int:
        with monkeypatch.context() as patch:
            then = int(time.time() - days * 86_400)
            patch.setattr(TimestampSigner, "get_timestamp", lambda _: then)
            link = MagicLink(tree, user, 1).sign(lab.settings)
        return lab("GET", f"/v2/orgs/1/auspice/access/{link}").status_code

    assert aged(6.99) == 200
    assert aged(7.01) == 400


def test_auspice_link_follows_current_rights_of_its_creator(lab: Api) -> None:
    path = link_to(lab, trees_of(lab, 1)[0])
    with lab.database.begin() as session:
        user = session.scalars(sa.select(User.id).where(User.auth0_user_id == "auth0|member")).one()
        session.execute(sa.delete(UserRole).where(UserRole.user_id == user))
    assert lab("GET", path).status_code == 400
    with lab.database.begin() as session:
        role = session.scalars(sa.select(Role).where(Role.name == "viewer")).one()
        session.add(UserRole(user_id=user, group=session.get_one(Group, 1), role=role))
    assert not any("GISAID_ID" in node for node in shown(lab, path).values())


@pytest.mark.parametrize(("principal", "group"), [("member", 1), ("g3admin", 3)])
def test_auspice_link_to_inaccessible_tree_is_refused(lab: Api, principal: str, group: int) -> None:
    foreign = trees_of(lab, 2 if group == 1 else 1)[0]
    for tree in (foreign, 999_999, -1):
        answer = lab(
            "POST", f"/v2/orgs/{group}/auspice/generate", principal, json={"tree_id": tree}
        )
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("No phylo run found for user")


@pytest.mark.parametrize("body", [{}, [], {"tree_id": "x"}, {"tree_id": 2**31}], ids=str)
def test_auspice_link_request_without_valid_tree_returns_422(lab: Api, body: Any) -> None:
    assert lab("POST", GENERATE, "member", json=body).status_code == 422
    assert lab("POST", GENERATE, "nogroup", json=body).status_code == 403
    assert lab("POST", GENERATE, None, json=body).status_code == 401


def test_auspice_link_to_missing_tree_file_returns_404(lab: Api) -> None:
    tree = trees_of(lab, 1)[0]
    with lab.database.begin() as session:
        session.get_one(PhyloTree, tree).s3_key = "no/such/file.json"
    answer = lab("GET", link_to(lab, tree))
    assert answer.status_code == 404
    assert answer.json()["error"] == "the tree file no longer exists"


@contextmanager
def hanging_up() -> Iterator[str]:
    """Yield the address of a server that closes each connection without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            with suppress(OSError):  # closed at the end
                while True:
                    server.accept()[0].close()

        serving = threading.Thread(target=hang_up)
        serving.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    serving.join()


def assert_storage_is_away(api: Api) -> None:
    answer = api("GET", link_to(api, trees_of(api, 1)[0]))
    assert (answer.status_code, answer.text) == (503, '{"error":"AWS cannot be reached"}')
    assert answer.headers["Retry-After"]


def test_storage_outage_returns_503(make_api: ApiFactory, roles: Database, aws: Cloud) -> None:
    away = {**aws.settings, "BOTO_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert_storage_is_away(make_api(roles, **away))


def test_storage_that_closes_connection_returns_503(
    make_api: ApiFactory, roles: Database, aws: Cloud
) -> None:
    with hanging_up() as address:
        assert_storage_is_away(make_api(roles, **{**aws.settings, "BOTO_ENDPOINT_URL": address}))


def test_missing_aws_credentials_return_503(
    make_api: ApiFactory, roles: Database, aws: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    assert_storage_is_away(make_api(roles, BOTO_ENDPOINT_URL=aws.address))
