"""Distances between genomes, compared with the obvious way of counting."""

from __future__ import annotations

import random

import pytest

np = pytest.importorskip("numpy", reason="the extra 'workflows' is not installed")

from aspen.workflows.tree.proximity import Focus, Packer, known_sites  # noqa: E402 - needs numpy


def distance(one: bytes, other: bytes, masked: tuple[int, int] = (0, 0)) -> int:
    sites = range(masked[0], len(one) - masked[1])
    known = b"ACGT"
    return sum(one[n] != other[n] and one[n] in known and other[n] in known for n in sites)


def variants(count: int, base: bytes, seed: str) -> list[bytes]:
    chance, made = random.Random(seed), []
    for _ in range(count):
        letters = bytearray(base)
        for site in chance.sample(range(len(base)), 30):
            letters[site] = chance.choice(b"ACGTNRY-")
        made.append(bytes(letters))
    return made


@pytest.mark.parametrize("masked", [(0, 0), (40, 70)])
def test_nearest_genome_is_found(masked: tuple[int, int]) -> None:
    base = bytes(random.Random("base").choices(b"ACGT", k=400))
    packer = Packer(base)
    focal, others = variants(40, base, "focal"), variants(100, base, "others")
    focus = Focus(base, (packer.codes(packer.pack(one)) for one in focal), len(focal), masked)
    for other in others:
        _, found = focus.find(packer.codes(packer.pack(other)))
        assert found == min(distance(other, one, masked) for one in focal)


def test_base_with_unknown_sites_changes_no_distance() -> None:
    base = bytes(random.Random("base").choices(b"ACGTN-", k=400))
    packer = Packer(base)
    focal, others = variants(10, base, "focal"), variants(30, base, "others")
    for one in focal:
        focus = Focus(base, [packer.codes(packer.pack(one))], 1)
        for other in others:
            found = focus.find(packer.codes(packer.pack(other)))
            assert found == (0, distance(other, one))


def test_equal_genomes_count_once() -> None:
    base = b"ACGT" * 100
    packer = Packer(base)
    codes = packer.codes(packer.pack(base))
    focus = Focus(base, [codes, codes, codes], 3)
    assert focus.find(codes) == (0, 0)


def test_packed_genome_is_restored() -> None:
    base = b"ACGT" * 7_500
    packer = Packer(base)
    for one in variants(5, base, "some"):
        packed = packer.pack(one)
        assert len(packed) < 1_000
        assert packer.unpack(packed) == one


def test_known_sites_are_counted() -> None:
    assert known_sites(b"ACGTNRY-acgt") == 4
