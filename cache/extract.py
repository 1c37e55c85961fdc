"""One vision pass per image that the store does not have yet, all wanted layers kept.

What holds about determinism: every batch has exactly ``batch_size`` rows (the last one is filled up by
repeating its last image), so each pass runs the same kernels on the same shapes, whatever is missing. On one
machine, with one batch size, one number of threads and deterministic kernels, an image's bytes are then the
same after any interruption, as far as a row of a matrix product does not depend on its place among the rows.
With ``batch_size=1`` nothing is left to depend on. Another batch size may change the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from claspkit.profiles.errors import BadDataError, MismatchError

from .layout import SHARD_BYTES, Features, image_shape, shard_bytes_needed
from .process import require_space
from .store import FeatureStore
from .tensors import to_stored
from .writer import FeatureWriter

if TYPE_CHECKING:
    from claspkit.runtime.models import LoadedModel


@runtime_checkable
class VisionEncoder(Protocol):
    """Whatever turns images into vision layers."""

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Return all layers: (B, layers + 1, N, d_v), entry 0 the embeddings, any float dtype and device."""


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        vision_passes: images sent through the vision tower to be stored; the rows that fill up the last batch
            are not counted.
        images: images in the store now, of those asked for.
        bytes: bytes of the shards written.
    """

    vision_passes: int
    images: int
    bytes: int


def extract(
    model: LoadedModel | VisionEncoder,
    images: Mapping[str, Callable[[], Image.Image]],
    store: FeatureStore,
    *,
    batch_size: int = 8,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractReport:
    """Compute and store the features of those of ``images`` that the store does not have.

    Every image accepted before an interruption is kept: Ctrl-C commits the shard in work, a kill loses only
    that shard, and the same call continues.

    Args:
        model: a loaded model, or an encoder of one's own.
        images: SHA-256 hex of an image -> how to open it; opened when its turn comes.
        store: open for writing; its key says which layers and which dtype.
        batch_size: images per vision pass.
        shard_bytes: target size of a shard.
        progress: called with (images done, images to do) after each batch.

    Raises:
        BadDataError: the model gave NaN or infinity for some images, which the text names; the others of
            their batch are stored.
        MismatchError: the model's layers, tokens or width are not those of the store's key.
        ResourceError: not enough disk space, or the writing process died.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    todo = store.missing(images)
    before = len(dict.fromkeys(images)) - len(todo)
    if not todo:
        return ExtractReport(0, before, 0)
    needed = shard_bytes_needed(store.key, len(todo))
    require_space(store.folder, needed, f"the features of {len(todo)} images")
    with store.writer(shard_bytes=shard_bytes, expected=len(todo)) as writer:
        encoder = _encoder(model)
        for start in range(0, len(todo), batch_size):
            names = todo[start : start + batch_size]
            hidden = _encode(encoder, [images[name]() for name in names], batch_size, store)
            _store_batch(names, hidden, store.key.dtype, writer)
            if progress is not None:
                progress(start + len(names), len(todo))
    return ExtractReport(len(todo), before + len(todo), writer.bytes)


def _encoder(model: LoadedModel | VisionEncoder) -> VisionEncoder:
    if isinstance(model, VisionEncoder):
        return model
    from .encoder import LoadedEncoder  # the model's code, which an encoder of one's own does without

    return LoadedEncoder(model)


def _encode(encoder: VisionEncoder, pictures: list[Image.Image], rows: int, store: FeatureStore) -> Tensor:
    """Run one pass of exactly ``rows`` rows; -> (len(pictures), wanted layers, N, d_v)."""
    key = store.key
    filled = pictures + [pictures[-1]] * (rows - len(pictures))
    with torch.inference_mode():
        hidden = encoder.encode(filled)
        fits = hidden.ndim == 4 and hidden.shape[0] == rows and hidden.shape[1] > key.layers[-1]
        if not fits or hidden.shape[2:] != image_shape(key)[1:]:
            raise MismatchError(
                f"the model gave vision layers of shape {tuple(hidden.shape)} (images, layers, tokens, "
                f"width), but the feature store in {store.folder} was made for {key.model_id} with layers up "
                f"to {key.layers[-1]}, {key.tokens} tokens and width {key.width}"
            )
        return hidden[: len(pictures), list(key.layers)]


def _store_batch(names: Sequence[str], hidden: Tensor, dtype: str, writer: FeatureWriter) -> None:
    """Write the good rows, then complain about the others."""
    stored: Features = to_stored(hidden, dtype)
    bad: list[int] = []
    for row, name in enumerate(names):
        try:
            writer.add(name, stored[row])
        except BadDataError:
            bad.append(row)
    if bad:
        from_model = not bool(torch.isfinite(hidden[bad]).all())
        why = (
            "the model computed NaN or infinity; try it in float32 or bfloat16"
            if from_model
            else f"values are too large for {dtype}; store them as bfloat16"
        )
        listed = ", ".join(names[row] for row in bad)
        raise BadDataError(f"no usable features for {len(bad)} images ({why}): {listed}")
