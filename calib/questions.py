"""What ``claspkit run`` is asked: one picture or a folder of them, one prompt or a file of lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from claspkit.profiles.canonical import strict_loads
from claspkit.profiles.errors import BadDataError, UsageError, shorten

from .data_jsonl import MAX_LINE_BYTES, numbered_lines
from .images import FORMATS, open_image

MAX_PROMPT: Final = 20_000
"""Characters of a prompt, at most."""

_ENDINGS = {f".{ending}" for ending in FORMATS.values()} | {".jpeg", ".tiff"}
_FIELDS = {"image", "prompt", "intent"}


@dataclass(frozen=True)
class Question:
    """One prompt about one picture.

    Attributes:
        where: what to call it in a message: the picture's name, or FILE:LINE.
        image: path of the picture below ``root``.
        root: folder that the picture may not leave.
        prompt: the user's text.
        intent: its class, None to route it.
    """

    where: str
    image: str
    root: Path
    prompt: str
    intent: str | None = None

    def open(self) -> Image.Image:
        """The picture, as :func:`claspkit.calib.images.open_image` gives it; its errors too."""
        try:
            return open_image(self.image, self.root)
        except BadDataError as error:
            raise BadDataError(str(error).replace("--image-root", "--image")) from None


@dataclass(frozen=True)
class Refused:
    """A line of a file that asks nothing that can be asked.

    Attributes:
        where: FILE:LINE.
        reason: what is wrong with it.
    """

    where: str
    reason: str


def gather(
    image: Path | None, prompt: str | None, prompts: Path | None, intents: Sequence[str], intent: str | None
) -> list[Question | Refused]:
    """Put the options of the command line together.

    Args:
        image: a picture, or a folder: all its pictures with ``prompt``, the root of the names in ``prompts``.
        prompt: the question about every picture.
        prompts: file with one {"image", "prompt", "intent"?} a line; without ``image`` in a line ``image`` is meant,
            and names are relative to the file's folder where ``image`` is no folder.
        intents: class ids that there are.
        intent: class of every prompt whose line names none; None to route.

    Raises:
        UsageError: options that do not go together, or nothing to ask.
    """
    if (prompt is None) == (prompts is None):
        raise UsageError("give either --prompt TEXT or --prompts FILE.jsonl")
    if prompts is not None:
        return list(_from_file(prompts, image, intents, intent))
    if image is None:
        raise UsageError("--prompt needs --image: a picture, or a folder of them")
    text = str(prompt)
    if len(text) > MAX_PROMPT:
        raise UsageError(f"the prompt has {len(text)} characters, {MAX_PROMPT} are allowed")
    if not image.is_dir():
        return [Question(image.name, image.name, image.parent, text, intent)]
    names = sorted(path.name for path in image.iterdir() if path.suffix.lower() in _ENDINGS and path.name[0] != ".")
    if not names:
        raise UsageError(f"{image} holds no pictures; names that count end in: {', '.join(sorted(_ENDINGS))}")
    return [Question(name, name, image, text, intent) for name in names]


def _from_file(
    path: Path, image: Path | None, intents: Sequence[str], intent: str | None
) -> Iterator[Question | Refused]:
    folder = image if image is not None and image.is_dir() else path.parent
    single = image if image is not None and not image.is_dir() else None
    try:
        file = path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read --prompts {path}: {error.strerror}") from None
    with file:
        empty = True
        for number, line in numbered_lines(file, len):
            empty = False
            where = f"{path.name}:{number}"
            try:
                yield _question(where, line, folder, single, intents, intent)
            except ValueError as error:
                yield Refused(where, str(error))
        if empty:
            raise UsageError(f'--prompts {path} has no line; one looks like {{"image": "a.png", "prompt": "..."}}')


def _question(
    where: str, line: bytes | None, folder: Path, single: Path | None, intents: Sequence[str], intent: str | None
) -> Question:
    """Read one line; ValueError says what is wrong with it."""
    if line is None:
        raise ValueError(f"the line is longer than {MAX_LINE_BYTES} bytes")
    row: Any = strict_loads(line, max_bytes=MAX_LINE_BYTES)
    if not isinstance(row, dict):
        raise ValueError(f"one JSON object is needed, not {shorten(row, 40)}")
    unknown = sorted(row.keys() - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {shorten(unknown[0])}; there are: {', '.join(sorted(_FIELDS))}")
    prompt, name, named = row.get("prompt"), row.get("image"), row.get("intent", intent)
    if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > MAX_PROMPT:
        raise ValueError(f"prompt must be a text of 1 to {MAX_PROMPT} characters, not {shorten(prompt, 40)}")
    if named is not None and named not in intents:
        raise ValueError(f"unknown intent {shorten(named)}; there are: {', '.join(intents)}")
    if name is None and single is not None:
        return Question(where, single.name, single.parent, prompt, named)
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"image must be a path, not {shorten(name, 40)}")
    return Question(where, name, folder, prompt, named)
