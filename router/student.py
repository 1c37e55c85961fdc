"""The student: a linear classifier over hashed words, small enough to ship inside a profile. Plain numpy.

With the rows r_1 .. r_n that a prompt's features hash to (:mod:`.student_features`), its logits are
(sum of weights[r_i]) / sqrt(n) + bias, one per fine intent, divided by the temperature. Their softmax is summed over
the fine intents of each class: the class is the likeliest, and its share is the label's confidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import ProfileError, UsageError
from claspkit.profiles.intents import STANDARD
from claspkit.profiles.taxonomy import Taxonomy

from .backends import Backend
from .labels import Label
from .student_features import Features, features

MAX_FILE: Final = 1_000_000
MAX_BITS: Final = 15
SHIPPED: Final = Path(__file__).with_name("student.safetensors")
"""The student that comes with the package; how it was made: docs/router.md."""

_VERSION = 1  # of the features and of the file: weights of another version mean other words
_NAMES = {"weights", "bias", "temperature", "reject_below", "version"}
_TAXONOMY = "taxonomy"  # the labels_digest of a taxonomy of one's own, as 32 bytes; not in a standard student
_TEMPERATURES = (1e-3, 1e3)  # beyond them logits of float16 weights overflow or say nothing
_HEADER = 1000  # bytes of a file that are neither weights nor bias
_CHUNK = 256  # prompts at a time: the rows of 256 of the longest prompts take about 100 MB

Floats = NDArray[np.float32]


def most_bits(columns: int) -> int:
    """The largest k of a student with 2 ** k rows for ``columns`` fine intents whose file stays within MAX_FILE."""
    room = (MAX_FILE - _HEADER) // (2 * columns)  # float16
    return min(MAX_BITS, room.bit_length() - 1)


class StudentBackend(Backend):
    """Labels by a trained student. It rejects nothing itself: a profile's ``min_confidence`` does.

    Args:
        weights: (2 ** bits, F) float16, columns in the order of the taxonomy's F fine intents.
        bias: (F,) float16.
        temperature: > 0; divides the logits.
        reject_below: in [0, 1]; a label less sure than this should be the default class.
        taxonomy: what it labels with.
    """

    def __init__(
        self,
        weights: NDArray[np.float16],
        bias: NDArray[np.float16],
        temperature: float = 1.0,
        reject_below: float = 0.0,
        taxonomy: Taxonomy = STANDARD,
    ) -> None:
        self.taxonomy, self._merge = taxonomy, merge_matrix(taxonomy)
        self._members = [np.flatnonzero(column).tolist() for column in self._merge.T]  # fine intents of each class
        self._stored: dict[str, NDArray[Any]] = {
            "weights": weights,
            "bias": bias,
            "temperature": np.array([temperature], np.float32),
            "reject_below": np.array([reject_below], np.float32),
            "version": np.array([_VERSION], np.int32),
        }
        if taxonomy.labels_digest != STANDARD.labels_digest:
            self._stored[_TAXONOMY] = np.frombuffer(bytes.fromhex(taxonomy.labels_digest), np.uint8)
        self._weights, self._bias = weights.astype(np.float32), bias.astype(np.float32)
        self._bits = len(weights).bit_length() - 1
        self.temperature = float(self._stored["temperature"][0])
        self.reject_below = float(self._stored["reject_below"][0])
        self.template = sha256_hex(self.to_bytes())
        self.source = f"student:{self.template[:12]}"
        self.block = 4096

    def label(self, prompts: Sequence[str]) -> list[Label]:
        """One label per prompt: the likeliest intent, the likeliest fine intent of it, the intent's probability."""
        if len(prompts) == 1:
            return [self._label_one(prompts[0])]
        labels: list[Label] = []
        ids, kinds = self.taxonomy.ids, self.taxonomy.fine_ids
        for start in range(0, len(prompts), _CHUNK):
            shares = self._shares(prompts[start : start + _CHUNK])
            classes = class_shares(shares, self._merge)
            best = classes.argmax(axis=1)
            fine = np.where(self._merge.T[best] > 0, shares, -1).argmax(axis=1)
            sure = classes[np.arange(len(best)), best]
            labels += [
                Label(ids[intent], kinds[kind], min(share, 1.0), self.source, self.template)
                for intent, kind, share in zip(best.tolist(), fine.tolist(), sure.tolist(), strict=True)
            ]
        return labels

    def _label_one(self, prompt: str) -> Label:
        """The same for one prompt, without the arrays that many need: this is what every request waits for."""
        shares = self._shares([prompt])
        classes: list[float] = class_shares(shares, self._merge)[0].tolist()
        sure = max(classes)
        best, kinds = classes.index(sure), shares[0].tolist()
        fine = max(self._members[best], key=kinds.__getitem__)
        return Label(self.taxonomy.ids[best], self.taxonomy.fine_ids[fine], min(sure, 1.0), self.source, self.template)

    def _shares(self, prompts: Sequence[str]) -> Floats:
        return softmax(logits(self._weights, self._bias, features(prompts, self._bits)) / np.float32(self.temperature))

    def to_bytes(self) -> bytes:
        """The student as a safetensors file."""
        from safetensors.numpy import save

        data: bytes = save(self._stored)
        return data

    @classmethod
    def from_bytes(cls, data: bytes, taxonomy: Taxonomy = STANDARD) -> StudentBackend:
        """Read a student of ``taxonomy`` from a safetensors file that may be hostile.

        Raises:
            ProfileError: it is no safetensors file, or names, shapes, dtypes or values are not a student's.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if len(data) > MAX_FILE:
            raise ProfileError("router.file", f"it has {len(data)} bytes, a student at most {MAX_FILE}")
        try:
            tensors: dict[str, NDArray[Any]] = load(data)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ProfileError("router.file", f"no safetensors file: {error}") from None
        _check_taxonomy(tensors.pop(_TAXONOMY, None), taxonomy)
        if tensors.keys() != _NAMES:
            raise ProfileError("router.file", f"a student holds the tensors {', '.join(sorted(_NAMES))} and no others")
        _check(tensors, len(taxonomy.fine_intents))
        temperature, reject_below = float(tensors["temperature"][0]), float(tensors["reject_below"][0])
        return cls(tensors["weights"], tensors["bias"], temperature, reject_below, taxonomy)


def read_student(path: Path, taxonomy: Taxonomy = STANDARD) -> StudentBackend:
    """The student of ``taxonomy`` in a file, such as ``claspkit router distill`` writes.

    Raises:
        UsageError: the file cannot be read.
        ProfileError: it holds no student.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(
            f"the student {path} cannot be read ({error.strerror}); `claspkit router distill` writes one"
        ) from None
    return StudentBackend.from_bytes(data, taxonomy)


def logits(weights: Floats, bias: Floats, found: Features) -> Floats:
    """(prompts, F) float32 before the temperature, of weights (buckets, F) and bias (F,)."""
    scale = 1 / np.sqrt(np.maximum(found.counts, 1).astype(np.float32))
    scores: Floats = found.sums(weights) * scale[:, None].astype(np.float32) + bias
    return scores


def softmax(scores: Floats) -> Floats:
    """Shares of the last axis, which sum to 1."""
    parts = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Floats = parts / parts.sum(axis=-1, keepdims=True)
    return shares


def class_shares(shares: Floats, merge: Floats) -> Floats:
    """(n, F) shares of the fine intents, summed to the (n, K) of the classes by a :func:`merge_matrix`."""
    summed: Floats = shares @ merge
    return summed


def merge_matrix(taxonomy: Taxonomy) -> Floats:
    """(F, K): 1 where the fine intent of a row belongs to the class of a column."""
    matrix = np.zeros((len(taxonomy.fine_intents), len(taxonomy.ids)), dtype=np.float32)
    for number, fine in enumerate(taxonomy.fine_intents):
        matrix[number, taxonomy.ids.index(fine.intent)] = 1
    matrix.setflags(write=False)
    return matrix


def _check_taxonomy(stored: NDArray[Any] | None, taxonomy: Taxonomy) -> None:
    """Refuse a student that was trained for other fine intents or other classes."""
    if stored is not None and (str(stored.dtype) != "uint8" or stored.shape != (32,)):
        raise ProfileError("router.file", f"its {_TAXONOMY} {stored.shape} is {stored.dtype}, a student's is 32 uint8")
    wanted = STANDARD.labels_digest if stored is None else stored.tobytes().hex()
    if wanted != taxonomy.labels_digest:
        its = "the standard taxonomy" if wanted == STANDARD.labels_digest else "another taxonomy"
        raise ProfileError("router.file", f"the student was trained for {its}, not for {taxonomy.name!r}")


def _check(tensors: dict[str, NDArray[Any]], columns: int) -> None:
    """Refuse tensors that are not a student's: shapes, dtypes, then values."""
    weights, bias = tensors["weights"], tensors["bias"]
    rows = len(weights) if weights.ndim == 2 else 0
    fits = rows in {2**bits for bits in range(1, MAX_BITS + 1)} and weights.shape[1] == columns
    if not fits or bias.shape != (columns,):
        raise ProfileError("router.file", f"weights {weights.shape} and bias {bias.shape} are not a student's")
    wanted = {"weights": "float16", "bias": "float16", "temperature": "float32", "reject_below": "float32"}
    for name, dtype in {**wanted, "version": "int32"}.items():
        found = tensors[name]
        if str(found.dtype) != dtype or (name not in {"weights", "bias"} and found.shape != (1,)):
            raise ProfileError("router.file", f"{name} {found.shape} is {found.dtype}, a student's is {dtype}")
        if not np.isfinite(found).all():
            raise ProfileError("router.file", f"its {name} is not finite")
    version, temperature = int(tensors["version"][0]), float(tensors["temperature"][0])
    if version != _VERSION:
        raise ProfileError("router.file", f"a student of version {version}; this claspkit reads {_VERSION}")
    if not _TEMPERATURES[0] <= temperature <= _TEMPERATURES[1]:
        raise ProfileError("router.file", f"temperature {temperature} is not within {_TEMPERATURES}")
    if not 0 <= float(tensors["reject_below"][0]) <= 1:
        raise ProfileError("router.file", f"reject_below {tensors['reject_below'][0]} is not within 0 and 1")

