"""One vision pass per image that the store does not have yet, all wanted layers kept.

What holds about determinism: where all images have the same tokens, every batch has exactly ``batch_size`` rows (the
last one is filled up by repeating its last image), so each pass runs the same kernels on the same shapes, whatever is
missing. On one machine, with one batch size, one number of threads and deterministic kernels, an image's bytes are then
the same after any interruption and with any number of workers, as far as a row of a matrix product does not depend on
its place among the rows. With ``batch_size=1`` nothing is left to depend on. Another batch size may change the last
bits. Where token counts differ, every image is a pass of its own, its tiles or patches being the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import torch
from PIL import Image
from torch import Tensor

from claspkit.profiles.errors import BadDataError, MismatchError, UsageError

from .encoding import ClipEncoder, EncodedPicture, Picture, PictureEncoder, VisionEncoder
from .layout import SHARD_BYTES, Features, image_bytes, image_shape, shard_bytes_needed
from .manifest import Grid
from .process import require_space
from .store import FeatureStore
from .tensors import to_stored
from .writer import FeatureWriter

if TYPE_CHECKING:
    from claspkit.runtime.models import LoadedModel

__all__ = ["ClipEncoder", "ExtractReport", "Picture", "PictureEncoder", "VisionEncoder", "extract"]

Openers = Mapping[str, Callable[[], Picture]]
Reject = Callable[[str, str], None]
"""Called with the SHA-256 hex of an image that cannot be used, and why."""


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did.

    Attributes:
        vision_passes: images sent through the vision tower; the rows that fill up a batch are not counted.
        images: images in the store now, of those asked for.
        bytes: bytes of the shards written.
    """

    vision_passes: int
    images: int
    bytes: int


def extract(
    model: LoadedModel | VisionEncoder | PictureEncoder,
    images: Openers,
    store: FeatureStore,
    *,
    batch_size: int = 8,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
    worker: tuple[int, int] = (0, 1),
    written: Callable[[int], None] | None = None,
    reject: Reject | None = None,
) -> ExtractReport:
    """Compute and store the features of those of ``images`` that the store does not have.

    Every image accepted before an interruption is kept: Ctrl-C commits the shard in work, a kill loses only
    that shard, and the same call continues.

    Args:
        model: a loaded model, or an encoder of one's own.
        images: SHA-256 hex of an image -> how to open it; opened when its turn comes. Where token counts differ,
            each is opened once more before anything is computed: images of one count then follow one another. What
            is opened may be a clip, a list of frames of one size, where the model takes videos; its digest must then
            be another than that of the same file opened as an image.
        store: open for writing; its key says which layers and which dtype.
        batch_size: images per vision pass, where all have the same tokens.
        shard_bytes: target size of a shard.
        progress: called with (images done, images to do) after each batch.
        worker: (index, count): take only the images whose digest, read as a number, leaves ``index`` when divided
            by ``count``. Each of ``count`` processes fills a store of its own, and ``merge.merge`` makes them one.
        written: called with the bytes that a batch takes in its shard, before ``progress``.
        reject: takes each image that does not open or encode with a BadDataError, or that the model gives NaN or
            infinity for, and the rest goes on; None lets the first of them end the extraction.

    Raises:
        BadDataError: without ``reject``, an image did not open, the model's image processor refused it, or the model
            gave NaN or infinity for some, which the text names; the others of their batch are then stored.
        MismatchError: the model's layers, tokens or width are not those of the store's key.
        ResourceError: not enough disk space, or the writing process died.
        UsageError: a clip for a model that takes none.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    mine = share_of(images, worker)
    todo = store.missing(mine)
    before = len(mine) - len(todo)
    if not todo:
        return ExtractReport(0, before, 0)
    run = _plan(model, todo, images, store, batch_size, reject)
    require_space(store.folder, run.needed, f"the features of {len(run.order)} images")
    passes = kept = 0
    with store.writer(shard_bytes=shard_bytes, expected=len(run.order)) as writer:
        for start in range(0, len(run.order), run.rows):
            asked = run.order[start : start + run.rows]
            for names, hidden, grids in _encoded_passes(run, _open(asked, images, reject), reject):
                passes += len(names)
                good = _store_batch(names, hidden, grids, store.key.dtype, writer, reject)
                kept += good
                if written is not None:
                    written(good * image_bytes(store.key, hidden.shape[2]))
            if progress is not None:
                progress(len(todo) - len(run.order) + start + len(asked), len(todo))
    return ExtractReport(passes, before + kept, writer.bytes)


def share_of(images: Iterable[str], worker: tuple[int, int]) -> list[str]:
    """The digests that fall to worker (index, count), in the given order.

    Raises:
        UsageError: index or count make no sense.
    """
    index, count = worker
    if not 0 <= index < count:
        raise UsageError(f"worker {index} of {count}: the index must be at least 0 and below the number of workers")
    return [name for name in images if int(name, 16) % count == index]


@dataclass(frozen=True)
class _Run:
    """Images in the order in which they are computed, ``rows`` per pass; ``needed`` bytes of disk."""

    order: Sequence[str]
    rows: int
    needed: int
    encode: Callable[[list[Picture]], tuple[Tensor, list[Grid]]]


def _plan(
    model: LoadedModel | VisionEncoder | PictureEncoder,
    todo: Sequence[str],
    images: Openers,
    store: FeatureStore,
    batch_size: int,
    reject: Reject | None,
) -> _Run:
    key = store.key
    if key.tokens is not None:
        alike = _encoder(model)
        needed = shard_bytes_needed(key, len(todo))
        return _Run(todo, batch_size, needed, lambda batch: _encode_batch(alike, batch, batch_size, store))
    varied = _picture_encoder(model, store)
    tokens: dict[str, int] = {}
    for each in todo:
        for name, image in _open([each], images, reject).items():
            try:
                tokens[name] = _tokens(varied, image)
            except BadDataError as error:
                _refuse(name, error, reject)
    needed = sum(shard_bytes_needed(key, count, each) for each, count in Counter(tokens.values()).items())
    order = sorted(tokens, key=lambda name: tokens[name])
    return _Run(order, 1, needed, lambda batch: _encode_one(varied, batch[0], store))


def _open(names: Sequence[str], images: Openers, reject: Reject | None) -> dict[str, Picture]:
    """The images that open, by name; the others are rejected."""
    opened: dict[str, Picture] = {}
    for name in names:
        try:
            opened[name] = images[name]()
        except BadDataError as error:
            if reject is None:
                raise
            reject(name, str(error))
    return opened


def _encoded_passes(
    run: _Run, opened: Mapping[str, Picture], reject: Reject | None
) -> Iterator[tuple[list[str], Tensor, list[Grid]]]:
    """Encode images in one pass; where one of them is refused, each in a pass of its own, without the refused."""
    if not opened:
        return
    try:
        hidden, grids = run.encode(list(opened.values()))
    except BadDataError as error:
        if len(opened) == 1:
            _refuse(next(iter(opened)), error, reject)
            return
    else:
        yield list(opened), hidden, grids
        return
    for name, picture in opened.items():
        yield from _encoded_passes(run, {name: picture}, reject)


def _refuse(name: str, error: BadDataError, reject: Reject | None) -> None:
    """Reject an image that an encoder does not take."""
    if reject is None:
        raise BadDataError(f"image {name}: {error}") from error
    reject(name, str(error))


def _encoder(model: LoadedModel | VisionEncoder | PictureEncoder) -> VisionEncoder:
    if isinstance(model, VisionEncoder):
        return model
    if isinstance(model, PictureEncoder):
        raise MismatchError("the key says that all images have the same tokens: an encoder with encode() is needed")
    from .encoder import LoadedEncoder  # the model's code, which an encoder of one's own does without

    return LoadedEncoder(model)


def _picture_encoder(model: LoadedModel | VisionEncoder | PictureEncoder, store: FeatureStore) -> PictureEncoder:
    if isinstance(model, PictureEncoder):
        return model
    if isinstance(model, VisionEncoder):
        raise MismatchError(
            f"the feature store in {store.folder} is for images whose token counts differ: an encoder with tokens() "
            "and encode_picture() is needed"
        )
    from .encoder import LoadedPictureEncoder

    return LoadedPictureEncoder(model)


def _encode_batch(
    encoder: VisionEncoder, pictures: list[Picture], rows: int, store: FeatureStore
) -> tuple[Tensor, list[Grid]]:
    """Run one pass of exactly ``rows`` rows; -> (len(pictures), wanted layers, N, d_v), and no grids."""
    key = store.key
    stills = [picture if isinstance(picture, Image.Image) else _no_clips() for picture in pictures]
    filled = stills + [stills[-1]] * (rows - len(stills))
    with torch.inference_mode():
        hidden = encoder.encode(filled)
        fits = hidden.ndim == 4 and hidden.shape[0] == rows and hidden.shape[1] > key.layers[-1]
        if not fits or hidden.shape[2:] != image_shape(key)[1:]:
            raise _mismatch(hidden, store)
        return hidden[: len(pictures), list(key.layers)], [()] * len(pictures)


def _tokens(encoder: PictureEncoder, picture: Picture) -> int:
    if isinstance(picture, Image.Image):
        return encoder.tokens(picture)
    return encoder.clip_tokens(picture) if isinstance(encoder, ClipEncoder) else _no_clips()


def _encoded(encoder: PictureEncoder, picture: Picture) -> EncodedPicture:
    if isinstance(picture, Image.Image):
        return encoder.encode_picture(picture)
    return encoder.encode_clip(picture) if isinstance(encoder, ClipEncoder) else _no_clips()


def _no_clips() -> NoReturn:
    raise UsageError("this model's features are of pictures only, but a clip was given: give single pictures")


def _encode_one(encoder: PictureEncoder, picture: Picture, store: FeatureStore) -> tuple[Tensor, list[Grid]]:
    """Run one pass; -> (1, wanted layers, tokens, d_v) and the one grid."""
    key = store.key
    with torch.inference_mode():
        encoded = _encoded(encoder, picture)
        hidden = encoded.layers[None]
        if hidden.ndim != 4 or hidden.shape[1] <= key.layers[-1] or hidden.shape[3] != key.width:
            raise _mismatch(hidden, store)
        return hidden[:, list(key.layers)], [encoded.grid]


def _mismatch(hidden: Tensor, store: FeatureStore) -> MismatchError:
    key = store.key
    tokens = "any number of" if key.tokens is None else key.tokens
    return MismatchError(
        f"the model gave vision layers of shape {tuple(hidden.shape)} (images, layers, tokens, width), but the feature "
        f"store in {store.folder} was made for {key.model_id} with layers up to {key.layers[-1]}, {tokens} tokens and "
        f"width {key.width}"
    )


def _store_batch(
    names: Sequence[str],
    hidden: Tensor,
    grids: Sequence[Grid],
    dtype: str,
    writer: FeatureWriter,
    reject: Reject | None,
) -> int:
    """Write the good rows, then complain about the others; returns how many were good."""
    stored: Features = to_stored(hidden, dtype)
    bad: dict[str, str] = {}
    for row, name in enumerate(names):
        try:
            writer.add(name, stored[row], grids[row])
        except BadDataError:
            bad[name] = (
                f"values are too large for {dtype}; store them as bfloat16"
                if bool(torch.isfinite(hidden[row]).all())
                else "the model computed NaN or infinity; try it in float32 or bfloat16"
            )
    if bad and reject is None:
        why = " or ".join(dict.fromkeys(bad.values()))
        raise BadDataError(f"no usable features for {len(bad)} images ({why}): {', '.join(bad)}")
    for name, reason in bad.items():
        assert reject is not None
        reject(name, f"no usable features: {reason}")
    return len(names) - len(bad)
