"""Pictures from strangers: opened only inside their folder, refused with a reason."""

from __future__ import annotations

import errno
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from claspkit.profiles.canonical import sha256_hex, write_atomic
from claspkit.profiles.errors import BadDataError, ClaspError, ResourceError, shorten
from claspkit.runtime.pictures import check_sides

MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 89_478_485  # Pillow's own limit for a picture that is no decompression bomb

# What says that the name in the data is wrong. Anything else (EIO, EMFILE, ESTALE, EACCES, ...) says nothing about the
# picture: it may be there and whole in a moment, so it must not be left out of a run for good.
_NO_SUCH_FILE = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.ENXIO,  # a pipe or socket
}

# Pillow's format name -> file ending. Formats that start other programs (EPS) or that nobody photographs in
# stay out.
FORMATS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tif",
    "PPM": "ppm",
}


@dataclass(frozen=True)
class StoredPicture:
    """A picture that was decoded once: ``path`` below its image root, and the sha256 of its bytes."""

    path: str
    sha256: str


def image_digest(path: Path | str) -> str:
    """The sha256 of a file's bytes, 64 hexadecimal digits: how the toolkit names a picture."""
    return sha256_hex(Path(path).read_bytes())


def open_image(path: str, root: Path | str, sha256: str | None = None) -> Image.Image:
    """Open the picture ``path`` below ``root`` as RGB, 8 bits a channel, upright (EXIF orientation applied).

    Of an animation the first frame counts. ``sha256`` is what the file's bytes must be; None takes what is there.

    Raises:
        BadDataError: the path leaves ``root`` (also through a symbolic link), nothing or no plain file is there, the
            file is no picture, is cut short, unpacks to more than MAX_PIXELS, is too long and thin
            (:data:`claspkit.runtime.pictures.MAX_RATIO`), or has another sha256.
        ResourceError: the file cannot be read now, which says nothing about the picture.
    """
    return _decode(checked_bytes(path, root, sha256), path)[0]


def checked_bytes(path: str, root: Path | str, sha256: str | None) -> bytes:
    """The bytes of the file ``path`` below ``root``, which must have this sha256; None takes what is there.

    Raises:
        BadDataError: as of :func:`read_inside`, or the file has another sha256.
        ResourceError: as of :func:`read_inside`.
    """
    data = read_inside(path, root)[1]
    if sha256 is not None and sha256_hex(data) != sha256:
        raise BadDataError(
            f"picture {shorten(path)}: it is no longer the file that the sample list was made from (sha256 "
            f"{sha256_hex(data)[:12]}..., not {sha256[:12]}...). Put the old file back, or start a new run."
        )
    return data


def decode_image(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture in the bytes of a file, as :func:`open_image` gives it; ``name`` stands for it in an error.

    Raises:
        BadDataError: as of :func:`open_image`, but for what is about the path; or it has more than ``max_pixels``,
            which its header says before anything is decoded.
    """
    return _decode(data, name, max_pixels)[0]


def check_image(path: str, root: Path | str) -> StoredPicture:
    """Decode the picture ``path`` below ``root`` once and say which it is; errors as :func:`open_image`."""
    relative, data = read_inside(path, root)
    _decode(data, path)
    return StoredPicture(relative, sha256_hex(data))


def store_image(data: bytes, folder: Path, name: str = "embedded picture") -> StoredPicture:
    """Write the bytes of a picture to ``folder``/<sha256>.<ending>, once and whole, and say where.

    The bytes are kept as they are. A file of that name that holds other bytes (a damaged copy) is replaced.

    Raises:
        BadDataError: the bytes are no picture, see :func:`open_image`; ``name`` stands for them in the
        reason. ResourceError: the disk is full.
    """
    ending = _decode(data, name)[1]
    sha256 = sha256_hex(data)
    path = folder / f"{sha256}.{ending}"
    if not path.is_file() or path.stat().st_size != len(data) or image_digest(path) != sha256:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, data)
        except OSError as error:
            raise ResourceError(
                f"pictures cannot be written into {folder}: {_plain_reason(error)}"
            ) from error
    return StoredPicture(path.name, sha256)


class PictureChecks:
    """Pictures of one image root, each decoded once however many rows ask about it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, StoredPicture | BadDataError] = {}

    def check(self, path: str) -> StoredPicture:
        """As :func:`check_image`; the answer, also a refusal, is remembered."""
        if path not in self._known:
            try:
                self._known[path] = check_image(path, self._root)
            except BadDataError as error:
                self._known[path] = error
        found = self._known[path]
        if isinstance(found, BadDataError):
            raise BadDataError(str(found))
        return found


def read_inside(path: str, root: Path | str) -> tuple[str, bytes]:
    """The bytes of the plain file ``path`` below ``root``, and its real path relative to the real root.

    Raises:
        BadDataError: the path leaves ``root``, is no plain file, or holds more than MAX_FILE_BYTES.
        ResourceError: the system does not let it be read, or not now: an I/O error, no permission, too many open files.
    """
    shown = shorten(path)
    try:
        base = Path(root).resolve(strict=True)
        real = (base / path).resolve(strict=True)
    except OSError as error:
        # A path out of the root is refused also where its folders may not be looked into.
        if Path(os.path.realpath(Path(root) / path)).is_relative_to(os.path.realpath(root)):
            raise _unreadable(shown, error) from None
        raise _outside(shown) from None
    except (ValueError, RuntimeError) as error:
        raise BadDataError(f"picture {shown}: {_plain_reason(error)}") from None
    if not real.is_relative_to(base):
        raise _outside(shown)
    try:
        # The path is resolved, so a link or a pipe here was put there since; neither may be followed or
        # waited for.
        handle = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            plain_file = stat.S_ISREG(os.fstat(handle).st_mode)
            data = _read_all(handle, MAX_FILE_BYTES + 1) if plain_file else b""
        finally:
            os.close(handle)
    except OSError as error:
        raise _unreadable(shown, error) from None
    if not plain_file:
        raise BadDataError(f"picture {shown}: not a plain file")
    if len(data) > MAX_FILE_BYTES:
        raise BadDataError(f"picture {shown}: larger than the {MAX_FILE_BYTES // 2**20} MiB allowed")
    return real.relative_to(base).as_posix(), data


def _outside(shown: str) -> BadDataError:
    return BadDataError(f"picture {shown}: it lies outside the image root (give its folder with --image-root)")


def _unreadable(shown: str, error: OSError) -> ClaspError:
    """The error for a file that could not be opened or read."""
    if error.errno in _NO_SUCH_FILE:
        return BadDataError(f"picture {shown}: {_plain_reason(error)}")
    return ResourceError(
        f"picture {shown} could not be read: {_plain_reason(error)}. That is no fault of the picture's, so it is not "
        "left out. Once files can be read again, or without it in the data, run the same command again to continue."
    )


def _read_all(handle: int, limit: int) -> bytes:
    with os.fdopen(handle, "rb", closefd=False) as file:
        return file.read(limit)


def _decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> tuple[Image.Image, str]:
    with decoding(data, name, tuple(FORMATS)) as picture:
        if picture.width * picture.height > max_pixels:
            size = f"{picture.width} x {picture.height} pixels, {max_pixels} are allowed"
            raise BadDataError(f"picture {shorten(name)}: it has {size}")
        # Many phones write MPO, a JPEG with a second one behind it; Pillow's JPEG reader finds out.
        return as_rgb(picture), FORMATS.get(str(picture.format), "jpg")


@contextmanager
def decoding(data: bytes, name: str, formats: tuple[str, ...], reads: int | None = None) -> Iterator[Image.Image]:
    """Open the bytes of a picture; whatever a decoder raises inside the block becomes one kind of error.

    Args:
        data: a file's bytes.
        name: what to call it in an error.
        formats: Pillow's names of the formats allowed, some of :data:`FORMATS`.
        reads: how often a decoder may read from the file; None for as often as it likes.

    Raises:
        BadDataError: the bytes are no picture of these formats, are damaged, unpack to more than MAX_PIXELS, are too
            long and thin, or take more than ``reads``.
    """
    shown = shorten(name)
    if not data:
        raise BadDataError(f"picture {shown}: the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what Pillow grumbles about and still decodes is no news to the user
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = io.BytesIO(data) if reads is None else _Metered(data, reads, shown)
            with Image.open(file, formats=formats) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                _check_sides(picture, shown)
                yield picture
    except BadDataError:
        raise  # something that a decoder has no objections to
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadDataError(f"picture {shown}: a decompression bomb, more than {MAX_PIXELS} pixels") from None
    except UnidentifiedImageError:
        known = ", ".join(sorted({FORMATS[each] for each in formats}))
        raise BadDataError(f"picture {shown}: not a picture in a known format ({known})") from None
    except MemoryError:
        raise  # the machine's fault, not the picture's
    except Exception as error:  # a damaged file makes a decoder raise almost anything
        raise BadDataError(f"picture {shown}: damaged or cut short ({_plain_reason(error)})") from None


class _Metered(io.BytesIO):
    """A file that may be read from so often."""

    def __init__(self, data: bytes, reads: int, shown: str) -> None:
        super().__init__(data)
        self._allowed, self._left, self._shown = reads, reads, shown

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, or refuse."""
        self._left -= 1
        if self._left < 0:
            raise BadDataError(
                f"picture {self._shown}: it is made of too many pieces; {self._allowed} reads are allowed. Save it anew"
            )
        return super().read(size)


def _check_sides(picture: Image.Image, shown: str) -> None:
    try:
        check_sides(picture.size)
    except BadDataError as error:
        raise BadDataError(f"picture {shown}: {error}") from None


def as_rgb(picture: Image.Image) -> Image.Image:
    """The picture, or the frame it stands at, as RGB and upright."""
    picture.load()
    # Through RGBA, or Pillow maps a palette with transparency wrongly for some files.
    whole = picture.convert("RGBA") if picture.mode == "P" and "transparency" in picture.info else picture
    return ImageOps.exif_transpose(whole).convert("RGB")


def _plain_reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
