"""Pictures: what is opened, what is refused and why, and files that are written once."""

import errno
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image

from claspkit.calib import images
from claspkit.calib.images import PictureChecks, check_image, image_digest, open_image, store_image
from claspkit.profiles.errors import BadDataError, ResourceError


def encoded(
    size: tuple[int, int] = (40, 30), kind: str = "PNG", mode: str = "RGB", **options: object
) -> bytes:
    """The bytes of a picture with some detail in it."""
    picture = Image.effect_noise(size, 60.0).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def huge_png(side: int) -> bytes:
    """A valid PNG header that claims ``side`` x ``side`` pixels, in a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image root with one picture in a folder, and one picture outside of it."""
    folder = tmp_path / "root"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.png").write_bytes(encoded())
    (tmp_path / "secret.png").write_bytes(encoded())
    return folder


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_every_format_opens_as_rgb_whatever_its_name(kind: str, root: Path) -> None:
    (root / "x.dat").write_bytes(encoded(kind=kind))
    picture = open_image("x.dat", root)
    assert (picture.mode, picture.size) == ("RGB", (40, 30))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_opens_as_rgb_without_a_warning(mode: str, root: Path) -> None:
    kind = "JPEG" if mode == "CMYK" else "PNG"
    seen_through = b"\x00\x80" if mode == "P" else None
    (root / "x").write_bytes(encoded(kind=kind, mode=mode, transparency=seen_through))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image("x", root).mode == "RGB"


def test_a_picture_is_turned_upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    (root / "x.jpg").write_bytes(encoded(kind="JPEG", exif=exif))
    assert open_image("x.jpg", root).size == (30, 40)


def link(target: str) -> Callable[[Path], str]:
    """A symbolic link in the root to ``target``."""

    def make(root: Path) -> str:
        (root / "link").symlink_to(target)
        return "link"

    return make


def file_of(data: bytes) -> Callable[[Path], str]:
    """A file in the root with these bytes."""

    def make(root: Path) -> str:
        (root / "bad.png").write_bytes(data)
        return "bad.png"

    return make


def pipe(root: Path) -> str:
    """A named pipe, which nobody will ever write into."""
    os.mkfifo(root / "pipe")
    return "pipe"


def linked_folder(root: Path) -> str:
    """A path through a linked folder that leaves the root half way."""
    (root / "door").symlink_to(root.parent)
    return "door/secret.png"


JPEG = encoded((200, 200), "JPEG")
PNG = encoded((200, 200))
REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda root: "in/b.png", "no such file"),
    "parent": (lambda root: "../secret.png", "outside the image root"),
    "deep parent": (lambda root: "in/../../secret.png", "outside the image root"),
    "absolute": (lambda root: str(root.parent / "secret.png"), "outside the image root"),
    "link out": (link("../secret.png"), "outside the image root"),
    "folder link out": (linked_folder, "outside the image root"),
    "link loop": (link("link"), "loop|symbolic"),
    "dangling link": (link("nowhere"), "no such file"),
    "folder": (lambda root: "in", "not a plain file"),
    "the root": (lambda root: ".", "not a plain file"),
    "pipe": (pipe, "not a plain file"),
    "device": (lambda root: "/dev/zero", "outside the image root"),
    "null byte": (lambda root: "a\0b", "null"),
    "long name": (lambda root: "x" * 5000, "too long"),
    "empty": (file_of(b""), "the file is empty"),
    "text": (file_of(b"hello"), "not a picture in a known format"),
    "svg": (file_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "not a picture"),
    "postscript": (file_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not a picture"),
    "cut jpeg": (file_of(JPEG[: len(JPEG) // 2]), "damaged or cut short"),
    "cut png": (file_of(PNG[: len(PNG) // 2]), "damaged or cut short"),
    "broken png": (file_of(PNG[:60] + bytes(20) + PNG[80:]), "damaged or cut short"),
    "bomb": (file_of(huge_png(50_000)), "decompression bomb"),
    "small bomb": (file_of(huge_png(10_000)), "decompression bomb"),
    "thin": (file_of(encoded((1, 201))), "1 x 201 pixels are too long and thin"),
    "long": (file_of(encoded((402, 2), "GIF")), "402 x 2 pixels are too long and thin"),
    "nothing outside": (lambda root: "../nothing.png", "outside the image root"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_below_the_root_is_refused_with_the_reason(case: str, root: Path) -> None:
    make, reason = REFUSED[case]
    path = make(root)
    with pytest.raises(BadDataError, match=reason):
        open_image(path, root)
    with pytest.raises(BadDataError, match=reason):
        check_image(path, root)


@pytest.mark.parametrize("size", [(200, 1), (1, 200), (3, 600)])
def test_a_panorama_is_no_bomb(size: tuple[int, int], root: Path) -> None:
    """Just as long as allowed."""
    (root / "x").write_bytes(encoded(size))
    assert open_image("x", root).size == size


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EACCES, errno.ENOMEM])
@pytest.mark.parametrize("call", ["open", "lstat", "read"])
def test_what_is_no_fault_of_the_picture_is_a_matter_of_resources(
    number: int, call: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is met on the way, at the opening or while reading; a path out of the root is still refused."""

    def fails(path: object, *_: object, **__: object) -> int:
        if str(path).endswith(("a.png", "door")) or call == "read":
            raise OSError(number, os.strerror(number))
        return real(path, *_, **__)  # type: ignore[no-any-return]

    checks = PictureChecks(root)
    with monkeypatch.context() as patched:
        where, name = (images, "_read_all") if call == "read" else (os, call)
        real = getattr(where, name)
        patched.setattr(where, name, fails)
        for ask in (lambda path: open_image(path, root), checks.check):
            with pytest.raises(ResourceError, match=rf"in/a\.png' could not be read: {os.strerror(number)}"):
                ask("in/a.png")
        if call == "lstat":
            for path in ("../a.png", str(root.parent / "door" / "a.png")):
                with pytest.raises(BadDataError, match="outside the image root"):
                    open_image(path, root)
    assert checks.check("in/a.png").path == "in/a.png"


def test_every_cut_of_a_picture_is_refused_or_the_whole_of_it(root: Path) -> None:
    data = encoded((9, 9))
    whole = Image.open(io.BytesIO(data)).tobytes()
    for length in range(len(data)):
        (root / "x.png").write_bytes(data[:length])
        try:
            assert open_image("x.png", root).tobytes() == whole
        except BadDataError:
            continue


def test_links_and_absolute_paths_that_stay_inside_are_the_file_they_mean(root: Path) -> None:
    (root / "link.png").symlink_to("in/a.png")
    digest = sha256((root / "in" / "a.png").read_bytes()).hexdigest()
    for path in ("in/a.png", "./in//a.png", "link.png", str(root / "in" / "a.png"), "in/../in/a.png"):
        found = check_image(path, root)
        assert (found.path, found.sha256) == ("in/a.png", digest)
    assert image_digest(root / "link.png") == digest


def test_the_root_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "other").symlink_to(root)
    assert check_image("in/a.png", root.parent / "other").path == "in/a.png"


def test_a_file_too_large_is_refused_before_it_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 100)
    with pytest.raises(BadDataError, match="larger than"):
        open_image("in/a.png", root)


def test_a_picture_is_stored_once_under_its_hash(tmp_path: Path) -> None:
    data, folder = encoded(kind="JPEG"), tmp_path / "new" / "pictures"
    stored = store_image(data, folder)
    assert stored.path == f"{sha256(data).hexdigest()}.jpg"
    assert (folder / stored.path).read_bytes() == data
    before = (folder / stored.path).stat()
    assert store_image(data, folder) == stored
    assert (folder / stored.path).stat().st_mtime_ns == before.st_mtime_ns
    assert [item.name for item in folder.iterdir()] == [stored.path]
    assert check_image(stored.path, folder) == stored


@pytest.mark.parametrize("damage", [b"", b"x", b"same length"])
def test_a_damaged_stored_picture_is_replaced(damage: bytes, tmp_path: Path) -> None:
    data = encoded()
    stored = store_image(data, tmp_path)
    (tmp_path / stored.path).write_bytes(damage if damage != b"same length" else bytes(len(data)))
    assert store_image(data, tmp_path) == stored
    assert (tmp_path / stored.path).read_bytes() == data


def test_what_is_no_picture_is_not_stored(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=r"picture 'row 3': not a picture"):
        store_image(b"hello", tmp_path, "row 3")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_matter_of_resources(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match="pictures cannot be written into"):
        store_image(encoded(), tmp_path / "file" / "pictures")


def test_each_picture_is_decoded_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = PictureChecks(root)
    (root / "bad.png").write_bytes(b"no")
    first = checks.check("in/a.png")
    with pytest.raises(BadDataError, match="not a picture"):
        checks.check("bad.png")
    monkeypatch.setattr(images, "check_image", lambda *_: pytest.fail("decoded again"))
    assert checks.check("in/a.png") == first
    with pytest.raises(BadDataError, match="not a picture"):
        checks.check("bad.png")
