"""Distances between aligned genomes: the number of sites at which both are known and differ.

A genome differs from the reference at few of its sites, so only those are compared. The focal
genomes take a byte for each site: 60 MB for 2,000 of SARS-CoV-2.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np

Sites: TypeAlias = Any
"""An array of letters or codes, one for each site."""

_CODES: Sites = np.zeros(256, dtype=np.uint8)
"""A, C, G, and T as 1 to 4; everything else is unknown, 0."""
for _number, _base in enumerate(b"ACGT", 1):
    _CODES[_base] = _number
_FAST = 1  # zlib's level; what is packed is nearly all zeros


class Packer:
    """Packs genomes as their differences from one of the same length.

    Args:
        base: The genome that the others resemble.
    """

    def __init__(self, base: bytes):
        self.length = len(base)
        self._base = np.frombuffer(base, dtype=np.uint8)

    def pack(self, sequence: bytes) -> bytes:
        """Return a genome of the same length in some hundred bytes."""
        return zlib.compress(
            (np.frombuffer(sequence, dtype=np.uint8) ^ self._base).tobytes(), _FAST
        )

    def unpack(self, packed: bytes) -> bytes:
        """Return the genome that was packed."""
        letters: bytes = self._letters(packed).tobytes()
        return letters

    def codes(self, packed: bytes) -> Sites:
        """Return a packed genome as codes."""
        return _CODES[self._letters(packed)]

    def _letters(self, packed: bytes) -> Sites:
        return np.frombuffer(zlib.decompress(packed), dtype=np.uint8) ^ self._base


def known_sites(sequence: bytes) -> int:
    """Return the number of sites that are A, C, G, or T."""
    return sum(map(sequence.count, (b"A", b"C", b"G", b"T")))


class Focus:
    """Genomes to which others may be near.

    Args:
        base: The genome that all of them resemble.
        genomes: Their codes; there is at least one.
        number: The number of genomes.
        masked: The number of sites to ignore at the beginning and at the end.
    """

    def __init__(
        self, base: bytes, genomes: Iterable[Sites], number: int, masked: tuple[int, int] = (0, 0)
    ):
        self._base = _CODES[np.frombuffer(base, dtype=np.uint8)]
        self._counted: Sites = np.ones(len(base), dtype=bool)
        self._counted[: masked[0]] = False
        self._counted[len(base) - masked[1] :] = False
        # One row for each site, so that the few sites of a comparison are together in memory.
        self._by_site: Sites = np.zeros((len(base), number), dtype=np.uint8)
        differing, seen = list[Sites](), set[bytes]()
        for genome in genomes:
            codes = genome * self._counted
            digest = blake2b(codes, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                self._by_site[:, len(differing)] = codes
                differing.append(np.flatnonzero((codes != self._base) & (codes != 0)))
        self._number = len(differing)
        self._by_site = self._by_site[:, : self._number]
        # All sites at which a focal genome differs, one genome after the other.
        self._sites = np.concatenate(differing)
        self._owners: Sites = np.repeat(np.arange(self._number), [len(one) for one in differing])

    def find(self, codes: Sites) -> tuple[int, int]:
        """Return the number of the nearest focal genome, and the distance to it."""
        known = (codes != 0) & self._counted
        own = np.flatnonzero(known & (codes != self._base))
        theirs = self._by_site[own]
        distances = ((theirs != codes[own, None]) & (theirs != 0)).sum(axis=0)
        # Where this genome has the base's letter, only what differs from that counts.
        known[own] = False
        distances += np.bincount(self._owners, known[self._sites], self._number).astype(np.int64)
        first = int(np.argmin(distances))
        return first, int(distances[first])
