"""What the local page of ``claspkit demo`` asks for: pictures that are there, pictures sent up, answers."""

from __future__ import annotations

import base64
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from claspkit.profiles.budget import Stage
from claspkit.profiles.errors import BadDataError, ResourceError, UsageError, shorten
from claspkit.profiles.files import read_profile
from claspkit.runtime.models import LoadedModel

from .apply import Answer, Asker
from .data_mini import enough_pictures
from .images import decode_image
from .overlay import draw_panels, stage_caption, view_captions
from .questions import MAX_PROMPT, gather
from .seen import see

MAX_UPLOAD: Final = 16 * 2**20
"""Bytes of a picture that is sent up, at most."""

MAX_PIXELS: Final = 40_000_000
"""Pixels of it, at most."""

KEPT_UPLOADS: Final = 4
"""Pictures sent up that are remembered; the oldest is forgotten."""

EXAMPLES: Final = 6
_EXAMPLE_SEED = 11  # which of the pictures that mini draws; no run samples from it by default
_MAX_EXAMPLES = 48
_FIELDS = {"picture", "prompt", "profile", "intent", "compare"}


class BusyError(ResourceError):
    """A question while another one is being answered."""


@dataclass(frozen=True)
class Example:
    """A picture to choose.

    Attributes:
        name: for people.
        png: the picture.
        prompt: a question about it; may be empty.
    """

    name: str
    png: bytes
    prompt: str


class Demo:
    """One model under one or more profiles, its pictures and its answers. Answers one question at a time."""

    def __init__(
        self, loaded: LoadedModel, profiles: Sequence[Path], examples: Sequence[Example], max_new_tokens: int
    ) -> None:
        """Read the profiles.

        Args:
            loaded: the model.
            profiles: files or folders; all made for this model.
            examples: pictures to choose from.
            max_new_tokens: longest answer.

        Raises:
            ProfileError, MismatchError, UsageError: as of reading a profile and of :class:`.apply.Asker`.
        """
        self._loaded, self._examples, self._longest = loaded, list(examples), max_new_tokens
        self._askers = [
            (name, Asker(loaded, read_profile(path), path if path.is_dir() else path.parent))
            for name, path in zip(_short_names(profiles), profiles, strict=True)
        ]
        self._uploads: OrderedDict[str, bytes] = OrderedDict()
        self._guard, self._model = threading.Lock(), threading.Lock()

    def facts(self) -> dict[str, Any]:
        """What the page offers: model, profiles with their classes, examples, limits."""
        return {
            "model": self._loaded.spec.id,
            "profiles": [
                {
                    "name": _profile_words(name, asker),
                    "intents": list(asker.profile.intent_ids),
                }
                for name, asker in self._askers
            ],
            "examples": [{"name": example.name, "prompt": example.prompt} for example in self._examples],
            "max_upload": MAX_UPLOAD,
            "max_prompt": MAX_PROMPT,
        }

    def example(self, index: int) -> bytes | None:
        """An example as PNG, None where there is none of that number."""
        return self._examples[index].png if 0 <= index < len(self._examples) else None

    def upload(self, data: bytes) -> str:
        """Remember a picture; returns the name to ask about it by.

        Raises:
            BadDataError: it is no picture, or too large.
        """
        if len(data) > MAX_UPLOAD:
            raise BadDataError(f"the picture has {len(data)} bytes, {MAX_UPLOAD} are allowed")
        _open(data)
        name = secrets.token_hex(16)
        with self._guard:
            self._uploads[name] = data
            while len(self._uploads) > KEPT_UPLOADS:
                self._uploads.popitem(last=False)
        return name

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer {"picture", "prompt", "profile", "intent", "compare"}.

        ``picture`` is "example:N" or what :meth:`upload` returned, ``profile`` the number of one, ``intent`` a class or
        None to route the prompt.

        Raises:
            BadDataError: a field is missing or not what it must be, or the picture cannot be used.
            BusyError: another question is being answered.
        """
        name, asker, prompt, intent, compare = self._checked(request)
        picture = self._picture(request["picture"])
        if not self._model.acquire(blocking=False):
            raise BusyError("another question is being answered; ask again in a moment")
        try:
            answer = asker.ask(picture, prompt, intent, self._longest, compare=compare)
            stages = self._stages(picture, answer)
        finally:
            self._model.release()
        plain = answer.to_dict()
        return {**plain, "stages": stages, "prompt": prompt, "profile": _profile_words(name, asker)}

    def _checked(self, request: Mapping[str, Any]) -> tuple[str, Asker, str, str | None, bool]:
        if set(request) != _FIELDS:
            raise BadDataError(
                f"a question has the fields {', '.join(sorted(_FIELDS))}, not {shorten(sorted(request))}"
            )
        number, prompt, intent, compare = (request[name] for name in ("profile", "prompt", "intent", "compare"))
        if type(number) is not int or not 0 <= number < len(self._askers):
            raise BadDataError(f"profile must be a number from 0 to {len(self._askers) - 1}, not {shorten(number)}")
        if not isinstance(prompt, str) or not prompt.strip() or len(prompt) > MAX_PROMPT:
            raise BadDataError(f"the question must have 1 to {MAX_PROMPT} characters")
        name, asker = self._askers[number]
        if intent is not None and intent not in asker.profile.intent_ids:
            raise BadDataError(f"unknown class {shorten(intent)}; there are: {', '.join(asker.profile.intent_ids)}")
        if not isinstance(compare, bool):
            raise BadDataError(f"compare must be true or false, not {shorten(compare)}")
        return name, asker, prompt, intent, compare

    def _picture(self, name: object) -> Image.Image:
        if isinstance(name, str) and name.startswith("example:"):
            digits = name.removeprefix("example:")
            data = self.example(int(digits)) if digits.isascii() and digits.isdigit() and len(digits) < 4 else None
        else:
            with self._guard:
                data = self._uploads.get(name) if isinstance(name, str) else None
        if data is None:
            raise BadDataError("that picture is not here (any more); choose or upload it again")
        return _open(data)

    def _stages(self, picture: Image.Image, answer: Answer) -> list[dict[str, Any]]:
        """What every stage kept, in numbers and drawn on the picture."""
        if not answer.stages:
            return []
        shown, tokens = see(self._loaded, picture)
        panels = draw_panels(shown, tokens, answer.stages)
        return [
            {
                "place": Stage(stage.after_layer, max(1, len(stage.kept))).place,
                "kept": len(stage.kept),
                "pivots": len(stage.pivots),
                "caption": ". ".join((*stage_caption(stage, answer.visual_tokens), *view_captions(tokens, stage))),
                "drawing": _data_url(panel),
            }
            for stage, panel in zip(answer.stages, panels, strict=True)
        ]


def drawn_examples(count: int = EXAMPLES) -> list[Example]:
    """Pictures that mini draws, each with one of its questions, of different classes."""
    examples = []
    for number, group in enumerate(enough_pictures(_EXAMPLE_SEED, count)):
        if number == count:
            break
        question = group[number % len(group)]
        examples.append(Example(f"drawn picture {number + 1}", _png(question.picture), question.question))
    return examples


def folder_examples(folder: Path) -> list[Example]:
    """The pictures of a folder, in the order of their names; at most 48.

    Raises:
        UsageError: no folder, or no picture in it that can be opened.
    """
    if not folder.is_dir():
        raise UsageError(f"--examples takes a folder of pictures, and {folder} is none")
    examples: list[Example] = []
    for question in gather(folder, " ", None, (), None):
        if len(examples) == _MAX_EXAMPLES:
            break
        try:
            examples.append(Example(question.where, _png(question.open()), ""))  # type: ignore[union-attr]
        except BadDataError:
            continue
    if not examples:
        raise UsageError(f"no picture in {folder} can be opened")
    return examples


def _short_names(paths: Sequence[Path]) -> list[str]:
    """The last two parts of every path, which fit on a phone; whole where two would be alike."""
    short = ["/".join(path.parts[-2:]) for path in paths]
    return [name if short.count(name) == 1 else str(path) for name, path in zip(short, paths, strict=True)]


def _profile_words(name: str, asker: Asker) -> str:
    profile = asker.profile
    return f"{profile.budget.nominal} of {profile.model.visual_tokens} tokens ({name})"


def _open(data: bytes) -> Image.Image:
    return decode_image(data, "your file", MAX_PIXELS)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _data_url(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(_png(picture)).decode()}"
