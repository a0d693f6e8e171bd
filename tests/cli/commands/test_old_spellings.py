"""Old spellings are translated to current ones; current ones stay unchanged."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from aspencli.cli.app import modernize
from tests.cli.commands.api_lab import ApiLab

KNOWN = {
    **dict.fromkeys(("--name", "--tree-type", "--template-args", "--email", "--role"), True),
    **dict.fromkeys(("--private-identifier", "--id-style", "-o", "--group"), True),
    **dict.fromkeys(("--private", "--public", "-y", "--dry-run", "--agreed-to-tos"), False),
}


@pytest.mark.parametrize(
    ("command", "typed", "becomes"),
    [
        ("users create", "a@b.org --name N --group-admin", "--name N --role admin --email a@b.org"),
        ("users create", "--name N -- a@b.org", "--name N --email a@b.org --"),
        ("phylo-runs create", "-nN -t=X s", "--name=N --tree-type==X s"),
        ("phylo-runs create", "-n N --type X -h s", "--name N --tree-type X s"),
        ("phylo-runs create", "-h", "-h"),
        ("samples validate-ids", "-h S", "S"),
        ("samples validate-ids", "-o json S", "-o json S"),
        ("samples validate-ids", "-yo json S", "-yo json S"),
        ("samples update", "7 --private false", "--public 7"),
        ("samples update", "7 --private=True", "--private 7"),
        ("samples update", "--private 7", "--private 7"),
        ("samples update", "--private 1", "--private 1"),
        ("samples update", "--private_id X 7", "--private-identifier X 7"),
        ("samples update", "--private-id=X 7", "--private-identifier=X 7"),
        ("phylo-trees download", "9 --public-ids", "--id-style public 9"),
        ("usher get-link", "a b 50", "--subtree-size 50 a b"),
        ("usher get-link", "50", "50"),
        ("usher get-link", "a b", "a b"),
        ("samples list", "--dry_run --unknown_one -h", "--dry-run --unknown_one -h"),
    ],
)
def test_old_spelling_becomes_new(command: str, typed: str, becomes: str) -> None:
    group, name = command.split()
    assert modernize((group, name), typed.split(), KNOWN) == becomes.split()


def test_usher_link_contains_subtree_size_and_file_url(shared_lab: ApiLab) -> None:
    ended = shared_lab("--org", "1", "usher", "get-link", "RCPHL-0000001", "50", "-o", "json")
    assert ended.code == 0, ended.err
    url = urlsplit(ended.json[0]["url"])
    assert (url.netloc, url.path) == ("genome.ucsc.edu", "/cgi-bin/hgPhyloPlace")
    asked = parse_qs(url.query)
    assert (asked["db"], asked["subtreeSize"]) == (["wuhCor1"], ["50"])
    assert asked["remoteFile"][0].startswith("http")


def test_samples_delete_without_keys_deletes_nothing(shared_lab: ApiLab) -> None:
    ended = shared_lab("--org", "1", "samples", "delete")
    assert ended.code == 0, ended.err
    assert "Nothing to change: no samples were given." in ended.err
