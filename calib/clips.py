"""Animated pictures as clips: frames at even distances, from files of strangers.

Animated GIF, WebP and PNG are the clips that need nothing but Pillow. Their timing is not looked at.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import BadDataError, shorten

from .images import MAX_PIXELS, as_rgb, checked_bytes, decoding

FORMATS = ("GIF", "WEBP", "PNG")
"""Pillow's names of the formats that can be animations."""

MAX_FRAMES = 2_000
"""Frames that a file may have: to reach a frame, those before it are decoded."""

MAX_READS = 2**21
"""Reads from a file: a GIF says nothing of its frames, and Pillow counts them with some reads each, several millions in
a hostile file. Twice what a GIF of full blocks takes that is as large as a file may be."""

MAX_DECODED = 8 * MAX_PIXELS
"""Pixels of all frames up to the last one taken."""


def open_clip(path: str, root: Path | str, frames: int, sha256: str | None = None) -> list[Image.Image]:
    """Open the animation ``path`` below ``root`` as RGB frames of one size, upright.

    Args:
        path: relative to ``root``.
        root: the folder that pictures must lie in.
        frames: how many to take: number i of F is frame ``i * n // F`` of the file's n, so a shorter file gives some
            of its frames several times.
        sha256: what the file's bytes must be; None takes what is there.

    Raises:
        BadDataError: as :func:`claspkit.calib.images.open_image`; or the file is no animation, has more than
            MAX_FRAMES frames, takes more than MAX_READS reads, or unpacks to more than MAX_DECODED pixels, or those
            taken to more than MAX_PIXELS.
        ValueError: ``frames`` is less than 1.
    """
    if frames < 1:
        raise ValueError(f"at least 1 frame is needed, not {frames}")
    data, shown = checked_bytes(path, root, sha256), f"clip {shorten(path)}"
    with decoding(data, path, FORMATS, MAX_READS) as picture:
        count = _frame_count(picture, shown)
        wanted = [number * count // frames for number in range(frames)]
        size = picture.width * picture.height
        if size * (wanted[-1] + 1) > MAX_DECODED or size * len(set(wanted)) > MAX_PIXELS:
            raise BadDataError(
                f"{shown}: {count} frames of {picture.width} x {picture.height} pixels are too many; at most "
                f"{MAX_DECODED} pixels are decoded and {MAX_PIXELS} kept. Shorten it, or make it smaller"
            )
        taken: dict[int, Image.Image] = {}
        for number in sorted(set(wanted)):
            picture.seek(number)
            taken[number] = as_rgb(picture)
        sizes = sorted({frame.size for frame in taken.values()})
        if len(sizes) != 1:
            raise BadDataError(f"{shown}: its frames have different sizes, {sizes}")
        return [taken[number] for number in wanted]


def clip_digest(sha256: str, frames: int) -> str:
    """Name a clip in a feature store: other features than those of the same file as a picture, or of other frames."""
    return sha256_hex(f"clip:{frames}:{sha256}".encode())


def _frame_count(picture: Image.Image, shown: str) -> int:
    """Frames of an animation.

    Raises:
        BadDataError: it has one only, or more than MAX_FRAMES.
    """
    count = int(getattr(picture, "n_frames", 1))
    if count < 2:
        raise BadDataError(f"{shown}: it has one frame, so it is a picture; a clip is an animated GIF, WebP or PNG")
    if count > MAX_FRAMES:
        raise BadDataError(f"{shown}: {count} frames; at most {MAX_FRAMES} are allowed. Shorten it")
    return count
