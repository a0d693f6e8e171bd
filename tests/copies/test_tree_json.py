"""Trees that are rewritten node by node, and the masks of single values in them."""

from __future__ import annotations

import datetime as dt
import json
import random
import re
import tracemalloc
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import pytest

from aspencli.copies.choices import Genomes
from aspencli.copies.hashing import Hashes
from aspencli.copies.names import KnownNames, Namer, SourceTree
from aspencli.copies.rules import load_rules, read_rules
from aspencli.copies.tree_json import MOST_CHARACTERS, Rewriting, UnusableTreeError, rewritten
from aspencli.copies.tree_masking import NameCollector, TreeMasking
from tests.copies.lab import MARK
from tests.copies.trees import document_of

RULES = load_rules()
TREE = SourceTree(1, "bucket", "key", 1, 1)


class Same(Rewriting):
    """No change at all; it counts nodes."""

    def __init__(self) -> None:
        self.tips = self.inner = 0

    def top(self, key: str, value: Any) -> dict[str, Any]:
        return {key: value}

    def node(self, own: Mapping[str, Any], *, is_tip: bool, depth: int) -> dict[str, Any]:
        self.tips += is_tip
        self.inner += not is_tip
        return dict(own)


def in_pieces(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def through(text: bytes, size: int = 7, changes: Rewriting | None = None) -> Any:
    return json.loads("".join(rewritten(in_pieces(text, size), changes or Same())))


@pytest.mark.parametrize("size", [1, 2, 3, 64, 100_000])
@pytest.mark.parametrize(
    "document",
    [
        {"meta": {"a": [1.5e3, "x"]}, "tree": {"name": 'é𝄞\\"', "children": [{"name": "b"}]}},
        {"tree": [{"name": "a"}, {"children": [{}, {"name": "c"}], "name": "late"}]},
        {"version": "v2", "tree": {}, "numbers": [-1, 0.25, 12345678901234567890]},
    ],
)
def test_document_without_changes_stays_equal_in_pieces_of_any_size(
    document: dict[str, Any], size: int
) -> None:
    for text in (json.dumps(document), json.dumps(document, ensure_ascii=False, indent=3)):
        assert through(text.encode(), size) == document


def test_deep_tree_needs_no_recursion() -> None:
    deep = 20_000
    text = '{"tree":' + '{"children":[' * deep + '{"name":"tip"}' + "]}" * deep + "}"
    counted = Same()
    "".join(rewritten(in_pieces(text.encode(), 4_096), counted))
    assert (counted.tips, counted.inner) == (1, deep)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"\x1f\x8b\x08\x00 gzip", "not JSON"),
        (b'{"tree": {"name": "a"}', "not JSON"),
        (b'{"tree": {"name": "a"}} more', "not JSON"),
        (b'{"tree": {"name": "a",}}', "not JSON"),
        (b'{"tree": {"name" "a"}}', "not JSON"),
        (b'{"tree": {"children": [{}, ]}}', "not JSON"),
        (b'{"tree": {"children": [{}}}', "not JSON"),
        (b'{"tree": {"name": "\xff"}}', "not JSON"),
        (b"[1, 2]", "not a tree"),
        (b'"text"', "not a tree"),
        (b'{"meta": {}}', "not a tree"),
        (b'{"tree": 7}', "not a tree"),
        (b'{"tree": {"children": {"name": "a"}}}', "not a tree"),
        (b'{"tree": {"children": [1]}}', "not a tree"),
        (b'{"meta": ' + b"[" * 100_000 + b"]" * 100_000 + b', "tree": {}}', "not JSON"),
    ],
)
def test_other_files_are_refused_with_the_reason(text: bytes, reason: str) -> None:
    with pytest.raises(UnusableTreeError, match=reason):
        "".join(rewritten(in_pieces(text, 64), Same()))


def test_value_that_does_not_fit_in_memory_is_refused() -> None:
    text = b'{"meta": {"title": "' + b"x" * (4 * MOST_CHARACTERS) + b'"}, "tree": {}}'
    with pytest.raises(UnusableTreeError, match="longer than 2 MB"):
        "".join(rewritten(in_pieces(text, 65_536), Same()))


def test_memory_does_not_grow_with_the_tree() -> None:
    node = json.dumps({"name": "hCoV-19/x", "node_attrs": {"div": 1, "note": "y" * 200}}).encode()

    def pieces(count: int) -> Iterator[bytes]:
        yield b'{"meta": {}, "tree": {"children": ['
        for number in range(count):
            yield (b"," if number else b"") + node
        yield b"]}}"

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in rewritten(pieces(count), masking()):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(3_000) < peak(300) + 100_000


def test_tree_with_more_names_than_memory_allows_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aspencli.copies.tree_masking.MOST_NAMES", 2)
    text = b'{"meta": {}, "tree": {"children": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}}'
    with pytest.raises(UnusableTreeError, match="more than 2 names"):
        "".join(rewritten([text], NameCollector(RULES.tree)))


# Values


def masking(genomes: Genomes = Genomes.KEEP) -> TreeMasking:
    known = KnownNames(own={"USA/own"}, public={"USA/public"})
    return TreeMasking(RULES, Hashes(RULES, "ab" * 32, -30), genomes, known, {"USA", "Nevada"})


def masked(node: dict[str, Any], genomes: Genomes = Genomes.KEEP) -> Any:
    text = json.dumps({"meta": {}, "tree": {"children": [node]}}).encode()
    return through(text, changes=masking(genomes))["tree"]["children"][0]


def attributes(name: str, **given: Any) -> Any:
    return masked({"name": name, "node_attrs": given})["node_attrs"]


def test_names_of_public_strains_and_inner_nodes_stay() -> None:
    assert masked({"name": "USA/public"})["name"] == "USA/public"
    assert masked({"name": "NODE_0000012"})["name"] == "NODE_0000012"
    assert len(masked({"name": "USA/own"})["name"]) == 20
    assert len(masked({"name": "unheard of"})["name"]) == 20


def test_names_with_and_without_prefix_have_the_same_hash() -> None:
    bare = masked({"name": "USA/own"})["name"]
    assert masked({"name": "hCoV-19/USA/own"})["name"] == f"hCoV-19/{bare}"


def test_name_behind_the_attributes_decides_about_them_too() -> None:
    node = {"node_attrs": {"gisaid_epi_isl": {"value": "EPI_ISL_1"}}, "name": "USA/public"}
    assert masked(node)["node_attrs"]["gisaid_epi_isl"] == {"value": "EPI_ISL_1"}
    node["name"] = "USA/own"
    assert masked(node)["node_attrs"]["gisaid_epi_isl"] != {"value": "EPI_ISL_1"}


@pytest.mark.parametrize("name", ["USA/public", "unheard of", "NODE_1"])
def test_dates_that_could_show_the_shift_are_left_out(name: str) -> None:
    assert attributes(name, div=2, num_date={"value": 2021.5}) == {"div": 2}


def test_node_keeps_a_distance_without_its_date() -> None:
    assert attributes("USA/public", num_date={"value": 2021.5}) == {"div": 2}
    own = attributes("USA/own", num_date={"value": 2021.5, "raw_value": "2021-07-02"})
    assert own == {"num_date": {"value": 2021.4178}, "div": 2}


@pytest.mark.parametrize("value", [1e9, -5, 0, "2021", None, [1], float("nan"), True])
def test_odd_dates_are_left_out(value: Any) -> None:
    assert "num_date" not in attributes("USA/own", num_date={"value": value})


def test_unknown_places_become_fake_ones_and_known_ones_stay() -> None:
    found = attributes(
        "NODE_1",
        country={"value": "USA", "confidence": {"USA": 0.9, "Atlantis": 0.1}, "entropy": 0.2},
        location={"value": "Atlantis"},
    )
    fake = found["location"]["value"]
    assert fake.startswith("Place ")
    assert found["country"] == {
        "value": "USA",
        "entropy": 0.2,
        "confidence": {"USA": 0.9, fake: 0.1},
    }


@pytest.mark.parametrize(
    "given",
    [
        {"patient": {"value": "x"}},
        {"S1_mutations": {"value": "text"}},
        {"QC_missing_data": {"value": "see Dr. Smith"}},
        {"pango_lineage": {"value": {"nested": "x"}}},
        {"pango_lineage": "text"},
        {"author": {"value": None, "title": "x"}},
        {"url": "https://example.org"},
        {"hidden": "x"},
        {"vaccine": {"serum": True}},
    ],
)
def test_attributes_without_a_rule_or_of_another_kind_are_left_out(given: dict[str, Any]) -> None:
    assert attributes("USA/own", div=1, **given) == {"div": 1}


def test_mutations_and_labels_are_changes_and_nothing_else() -> None:
    branch = {
        "mutations": {"nuc": ["A1C", "see below"], "S": ["N501Y"], "Smith": ["A1C"]},
        "labels": {"clade": "22B", "aa": "S: N501Y, D614G; N: R203K", "note": "x"},
        "length": "x",
    }
    node = {"name": "USA/own", "branch_attrs": branch}
    assert masked(node)["branch_attrs"] == {
        "mutations": {"nuc": ["A1C"], "S": ["N501Y"]},
        "labels": {"clade": "22B", "aa": "S: N501Y, D614G; N: R203K"},
    }
    assert masked(node, Genomes.DROP)["branch_attrs"] == {"labels": {"clade": "22B"}}


def test_odd_description_is_masked_without_an_error() -> None:
    for odd in (None, 1, "x", [1], {"a": 1}):
        meta = dict.fromkeys(
            ("colorings", "filters", "geo_resolutions", "display_defaults", "panels", "title"), odd
        )
        text = json.dumps({"meta": meta, "tree": {"node_attrs": odd, "branch_attrs": odd}})
        assert "tree" in through(text.encode(), changes=masking())
    with pytest.raises(UnusableTreeError, match="not a tree"):
        "".join(rewritten([b'{"meta": 1, "tree": {}}'], NameCollector(RULES.tree)))


def test_numbers_beyond_all_bounds_are_left_out() -> None:
    text = b'{"meta": {}, "tree": {"children": [{"node_attrs": {"div": 1e999}}]}}'
    node = through(text, changes=masking())["tree"]["children"][0]
    assert node == {"node_attrs": {"div": 2}}


def test_lone_surrogate_in_a_name_is_no_error() -> None:
    text = b'{"meta": {}, "tree": {"children": [{"name": "\\ud800"}]}}'
    name = through(text, changes=masking())["tree"]["children"][0]["name"]
    assert len(name) == 20


def test_names_that_postgresql_cannot_have_are_not_looked_up() -> None:
    asked: list[Any] = []

    def ask(_query: str, values: dict[str, Any]) -> list[Any]:
        asked.append(values)
        return []

    found = Namer(RULES, ask).known(TREE, {"a\0b", "\ud800", "Wuhan/Hu-1/2019"})
    assert found == KnownNames(set(), {"Wuhan/Hu-1/2019"})
    listed = [name for values in asked for name in values.get("names", ())]
    assert not [name for name in listed if "\0" in name or "\ud800" in name]


def test_unknown_rule_for_trees_is_refused_when_rules_are_read() -> None:
    text = b"prefixes = []\n[fakes]\n[sets]\n[tables]\n[tree.traits]\nage = 'mask'\n"
    with pytest.raises(ValueError, match=r"tree\.traits\.age: 'mask'"):
        read_rules(text)


CANARY = f"{MARK}-7"  # the letters alone could be a peptide
ODD: tuple[Any, ...] = (
    *(None, True, 0, -1.5, 1e308, "", CANARY, f"{CANARY} x", f"NODE_{CANARY}", f"hCoV-19/{CANARY}"),
    *(
        [],
        {},
        [CANARY],
        {CANARY: CANARY},
        {"value": CANARY},
        [[CANARY, "#111111"]],
        {"value": {CANARY: 1}},
    ),
)
TEXTS = re.compile(r'"(?:host|lineage|clade|outbreak)"|clade_membership|GISAID_clade|_lineage')


def test_no_canary_survives_wherever_it_is_planted() -> None:
    chance = random.Random(7)
    lab = ("USA/own", "private", "EPI_ISL_1", dt.date(2021, 5, 3))
    for _ in range(400):
        document = document_of(7, CANARY, CANARY, [lab] * 3, [("USA/public", "EPI_ISL_2")] * 2)
        for _ in range(chance.randrange(1, 6)):
            spoil(document, chance)
        text = json.dumps(document).encode()
        try:
            "".join(rewritten([text], NameCollector(RULES.tree)))
        except UnusableTreeError:
            continue
        found = "".join(rewritten([text], masking()))
        assert MARK not in found
        json.loads(found)


def spoil(document: Any, chance: random.Random) -> None:
    """Replace a random part of a document, other than a text that columns keep too."""
    at: Any = document
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(at, dict) and TEXTS.search(f'"{key}"'):
            return
        if not isinstance(at[key], dict | list) or chance.random() < 0.2:
            at[key] = deepcopy(chance.choice(ODD))
            return
        at = at[key]
