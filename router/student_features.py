"""What the student sees of a prompt: hashed words and their neighbours, for a whole batch of prompts at once.

Features are the words of the sentences that ask; their groups of four letters, with borders; pairs of neighbours;
pairs with one word between them; triples; the first two words and the first triple with their place. Each is a 64-bit
number made from the words' checksums, and its row is the top bits of a multiplicative hash of it.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .prompts import asked, normalise, question

MAX_WORDS: Final = 400
MAX_LETTERS: Final = 40
"""A prompt is read up to this many words, a word up to this many letters: what one prompt costs has a bound."""

_GROUP = 4
_CHECKSUM = np.dtype("<u4")
_KNOWN_WORDS = 2**16
_WORD = re.compile(r"\w+")
# Odd numbers without a pattern, one for each kind of feature and place in it; products wrap at 64 bits.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_PAIR = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_SKIP = (np.uint64(0x165667B19E3779F9), np.uint64(0xD6E8FEB86659FD93))
_TRIPLE = (np.uint64(0xA0761D6478BD642F), np.uint64(0xE7037ED1A0B428DB))
_FIRST = np.uint64(0x8EBC6AF09C88C6E3)
_BEGINNING = np.uint64(0xD6E8FEB86659FD93)
_ALL = 2**64 - 1
_ONLY = np.zeros(1, dtype=np.int64)

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Features:
    """Rows of the weight matrix that the features of a batch of prompts hash to, repetitions kept.

    Attributes:
        rows: (n,) int64, prompt after prompt.
        counts: (prompts,) int64, how many of the rows each prompt has; 0 for one without a word.
    """

    rows: Indices
    counts: Indices

    def take(self, chosen: Indices) -> Features:
        """The features of some prompts, (m,) int64 places in the batch, in that order."""
        counts = self.counts[chosen]
        begins = (np.cumsum(self.counts) - self.counts)[chosen]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Features(self.rows[np.repeat(begins, counts) + within], counts)

    def sums(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(prompts, columns) float32: each prompt's rows of ``values`` (buckets, columns), summed."""
        if len(self.counts) == 1 and len(self.rows):  # what follows, without what only several prompts need
            alone: NDArray[np.float32] = np.add.reduceat(values.take(self.rows, axis=0), _ONLY, axis=0)
            return alone
        total = np.zeros((len(self.counts), values.shape[1]), dtype=np.float32)
        some = self.counts > 0
        if some.any():
            begins = np.cumsum(self.counts) - self.counts
            total[some] = np.add.reduceat(values.take(self.rows, axis=0), begins[some], axis=0)
        return total


def features(prompts: Sequence[str], bits: int) -> Features:
    """The features of prompts, hashed to 2 ** ``bits`` rows. A prompt's do not depend on the prompts beside it."""
    found = [_WORD.findall(asked(question(normalise(prompt))))[:MAX_WORDS] for prompt in prompts]
    known = [_hashes(word[:MAX_LETTERS]) for words in found for word in words]
    if len(prompts) == 1:
        return _alone(known, bits)
    lengths = np.array([len(words) for words in found], dtype=np.int64)
    owner = np.repeat(np.arange(len(prompts)), lengths)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    word = np.array([item[0] for item in known], dtype=np.uint64)
    sizes = np.array([len(item[1]) for item in known], dtype=np.int64) // _CHECKSUM.itemsize
    groups = np.frombuffer(b"".join([item[1] for item in known]), dtype=_CHECKSUM).astype(np.uint64)

    pair = _joined(word[:-1], word[1:], _PAIR)
    near, far = owner[1:] == owner[:-1], owner[2:] == owner[:-2]
    skip = _joined(word[:-2], word[2:], _SKIP)
    triple = _joined(pair[:-1], word[2:], _TRIPLE)
    first, start = place < 2, far & (place[:-2] == 0)
    parts: list[tuple[Hashes, Indices]] = [
        (word, owner),
        (groups, np.repeat(owner, sizes)),
        (pair[near], owner[1:][near]),
        (skip[far], owner[2:][far]),
        (triple[far], owner[2:][far]),
        (word[first] * _FIRST + place[first].astype(np.uint64) + np.uint64(1), owner[first]),
        (triple[start] * _BEGINNING, owner[2:][start]),
    ]
    rows = np.concatenate([hashes for hashes, _ in parts])
    owners = np.concatenate([whose for _, whose in parts])
    order = np.argsort(owners, kind="stable")
    rows = _spread(rows, bits)
    return Features(rows[order], np.bincount(owners, minlength=len(prompts)).astype(np.int64))


def _alone(known: Sequence[tuple[int, bytes]], bits: int) -> Features:
    """The features of one prompt with these words; for so few, whole numbers of Python are faster than arrays."""
    words = [item[0] for item in known]
    pairs = _joined_each(words, words[1:], _PAIR)
    triples = _joined_each(pairs, words[2:], _TRIPLE)
    rest = pairs + _joined_each(words, words[2:], _SKIP) + triples
    rest += [(word * int(_FIRST) + place) & _ALL for place, word in enumerate(words[:2], 1)]
    rest += [(triple * int(_BEGINNING)) & _ALL for triple in triples[:1]]
    groups = np.frombuffer(b"".join([item[1] for item in known]), dtype=_CHECKSUM)
    hashes = np.concatenate((np.array(words, np.uint64), groups, np.array(rest, np.uint64)), dtype=np.uint64)
    return Features(_spread(hashes, bits), np.array([len(hashes)], dtype=np.int64))


@lru_cache(maxsize=_KNOWN_WORDS)
def _hashes(word: str) -> tuple[int, bytes]:
    """Checksum of a word, and those of its groups of letters as bytes; a word of one letter has none."""
    bordered = f"<{word}>"
    places = range(len(bordered) - _GROUP + 1)
    groups = [zlib.crc32(f"#{bordered[start : start + _GROUP]}".encode()) for start in places]
    return zlib.crc32(word.encode()), np.array(groups, dtype=_CHECKSUM).tobytes()


def _joined(left: Hashes, right: Hashes, factors: tuple[Any, Any]) -> Hashes:
    joined: Hashes = left * factors[0] + right * factors[1]
    return joined


def _joined_each(left: Sequence[int], right: Sequence[int], factors: tuple[Any, Any]) -> list[int]:
    """:func:`_joined` of the pairs there are, the shorter list ending it."""
    one, other = int(factors[0]), int(factors[1])
    return [(a * one + b * other) & _ALL for a, b in zip(left, right, strict=False)]


def _spread(hashes: Hashes, bits: int) -> Indices:
    rows: Indices = ((hashes * _SPREAD) >> np.uint64(64 - bits)).astype(np.int64)
    return rows
