"""Trees in Newick notation."""

from __future__ import annotations

import pytest

from aspen.workflows.tree import newick
from aspen.workflows.tree.newick import Node


def _depths(root: Node) -> dict[str, float]:
    found = {root: 0.0}
    for node in newick.preorder(root):
        for child in node.children:
            found[child] = found[node] + child.length
    return {tip.name: round(found[tip], 6) for tip in newick.tips(root)}


@pytest.mark.parametrize(
    "text",
    [
        "(a:0.10000000,b:0.20000000);",
        "((a:0.10000000,b:0.20000000):0.30000000,c:0.00000000);",
        "(a:0.10000000,(b:0.20000000,(c:0.10000000,d:0.10000000)x:0.50000000):0.00000000)root;",
    ],
)
def test_written_tree_equals_parsed_one(text: str) -> None:
    assert newick.write(newick.parse(text)) == text + "\n"


def test_parse_reads_quotes_comments_and_exponents() -> None:
    root = newick.parse("('a b''s':1e-3[comment],\n b/c|d :2.5E-1 ) ;\n")
    assert [(tip.name, tip.length) for tip in newick.tips(root)] == [
        ("a b's", 0.001),
        ("b/c|d", 0.25),
    ]


@pytest.mark.parametrize("text", ["(a,b", "a,b);", "(a,'b);", ")"])
def test_parse_rejects_what_is_not_a_tree(text: str) -> None:
    with pytest.raises(ValueError, match="not Newick notation"):
        newick.parse(text)


def test_deep_tree_is_parsed_rooted_and_written() -> None:
    depth = 20_000
    text = "(" * depth + "a:1" + "".join(f",t{number}:1):1" for number in range(depth)) + ";"
    root = newick.parse(text)
    tip = newick.tips(root)[0]
    again = newick.parse(newick.write(newick.rooted(root, tip)))
    assert again.children[0].name == tip.name
    assert len(newick.tips(again)) == depth + 1


def test_rooting_keeps_distances_between_tips() -> None:
    root = newick.parse("((a:1,b:2):3,(c:4,d:5):6);")
    tip = next(tip for tip in newick.tips(root) if tip.name == "c")
    new = newick.rooted(root, tip)
    assert _depths(new) == {"c": 0, "d": 9, "a": 14, "b": 15}
    assert [child.name for child in new.children if not child.children] == ["c"]
    assert all(len(node.children) != 1 for node in newick.preorder(new))


def test_rooting_a_pair_keeps_both() -> None:
    root = newick.parse("(a:1,b:2);")
    assert _depths(newick.rooted(root, root.children[1])) == {"b": 0, "a": 3}


def test_midpoint_is_halfway_between_farthest_tips() -> None:
    root = newick.parse("((a:1,b:2):3,(c:4,d:5):6);")
    depths = _depths(newick.at_midpoint(root))
    assert depths["b"] == depths["d"] == 8
    assert depths["c"] == 7


def test_midpoint_on_other_side_of_root() -> None:
    root = newick.parse("(a:1,(b:2,(c:4,d:5):6):3);")
    depths = _depths(newick.at_midpoint(root))
    assert depths["d"] == depths["a"] == 7.5


def test_midpoint_of_equal_sequences_is_present_root() -> None:
    root = newick.parse("(a:0,b:0,c:0);")
    assert newick.at_midpoint(root) is root
