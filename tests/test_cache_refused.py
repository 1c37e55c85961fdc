"""Pictures that open and that the model's image processor does not take: rejected by name, the rest is cached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from family_folders import load_tiny
from feature_stores import SHAPE, make_key, name_of
from PIL import Image
from torch import Tensor

from claspkit.cache import FeatureStore
from claspkit.cache.encoder import LoadedEncoder, LoadedPictureEncoder, feature_key
from claspkit.cache.extract import extract
from claspkit.profiles.errors import BadDataError
from claspkit.runtime import pictures as limits
from claspkit.runtime.inputs import batch_inputs, clip_inputs, encode_pictures
from claspkit.runtime.models import LoadedModel, load_model

Openers = dict[str, Callable[[], Image.Image]]


class Choosy:
    """Takes pictures whose red is even; layer values are the red."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        """Refuse the whole batch where one picture is odd, as an image processor does."""
        reds = [int(image.getpixel((0, 0))[0]) for image in images]  # type: ignore[index]
        self.calls.append(reds)
        if any(red % 2 for red in reds):
            raise BadDataError("too odd")
        return torch.tensor(reds, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 7, *SHAPE[1:])


def reds(*numbers: int) -> Openers:
    """Pictures by red."""
    return {name_of(number): partial(Image.new, "RGB", (4, 4), (number, 0, 0)) for number in numbers}


def test_one_of_a_batch_is_refused_and_the_others_are_stored_as_ever(tmp_path: Path) -> None:
    """Each picture of that batch gets a pass of its own, filled up to its rows; the next batch is one again."""
    encoder, refused, written = Choosy(), dict[str, str](), list[int]()
    with FeatureStore.open(tmp_path, make_key(), write=True) as store:
        report = extract(
            encoder,
            reds(2, 3, 4, 6, 8, 10),
            store,
            batch_size=3,
            reject=refused.__setitem__,
            written=written.append,
        )
        assert (refused, report.vision_passes, report.images) == ({name_of(3): "too odd"}, 5, 5)
        assert encoder.calls == [[2, 3, 4], [2, 2, 2], [3, 3, 3], [4, 4, 4], [6, 8, 10]]
        assert len(set(written[:2])) == 1
        assert written[2] == 3 * written[0]
        for red in (2, 4, 6, 8, 10):
            assert float(store.read(name_of(red), [5])[0, 0, 0]) == red


def test_without_rejecting_the_refused_picture_is_named(tmp_path: Path) -> None:
    """What was stored before it stays."""
    with FeatureStore.open(tmp_path, make_key(), write=True) as store:
        with pytest.raises(BadDataError, match=f"{name_of(3)}: too odd"):
            extract(Choosy(), reds(2, 3, 4), store, batch_size=3)
        assert store.digests == {name_of(2)}


@pytest.fixture
def qwen(tmp_path: Path) -> LoadedModel:
    """A tiny model whose own processor refuses what is 200 times as long as wide."""
    return load_tiny("qwen2.5-vl", tmp_path / "model")


@pytest.mark.parametrize("ours", [True, False])
def test_a_picture_too_thin_for_the_processor_is_rejected(
    ours: bool, qwen: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By this toolkit's bound, or by the processor's own ValueError; the other pictures are cached."""
    if not ours:
        monkeypatch.setattr(limits, "MAX_RATIO", 10**6)
    sizes = {name_of(0): (56, 56), name_of(1): (2, 700), name_of(2): (28, 56)}
    images: Openers = {name: partial(Image.new, "RGB", size) for name, size in sizes.items()}
    refused: dict[str, str] = {}
    with FeatureStore.open(tmp_path / "store", feature_key(qwen), write=True) as store:
        report = extract(qwen, images, store, reject=refused.__setitem__)
        assert report.images == 2
        assert store.digests == {name_of(0), name_of(2)}
    [(name, reason)] = refused.items()
    assert name == name_of(1)
    assert ("too long and thin" if ours else "image processor refuses it: ") in reason


def test_a_processor_refuses_when_the_pass_is_due(qwen: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures, clips and their counts alike become one kind of error."""
    monkeypatch.setattr(limits, "MAX_RATIO", 10**6)
    thin, encoder = Image.new("RGB", (2, 700)), LoadedPictureEncoder(qwen)
    for refused in (encoder.tokens, encoder.encode_picture):
        with pytest.raises(BadDataError, match="refuses it"):
            refused(thin)
    for clip in (encoder.clip_tokens, encoder.encode_clip):
        with pytest.raises(BadDataError, match="refuses it"):
            clip([thin, thin])


def test_a_batch_of_pictures_alike_is_refused_with_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ValueError of the processor is about the picture, one of the model is not."""
    loaded = load_model("mini")

    def refuses(*_: object, **__: object) -> object:
        raise ValueError("not this one")

    with monkeypatch.context() as patched:
        patched.setattr(type(loaded.processor.image_processor), "__call__", refuses)
        with pytest.raises(BadDataError, match="image processor refuses it: not this one"):
            LoadedEncoder(loaded).encode([Image.new("RGB", (9, 9))])
    monkeypatch.setattr(type(loaded.family), "vision_layers", refuses)
    with pytest.raises(ValueError, match="not this one"):
        LoadedEncoder(loaded).encode([Image.new("RGB", (9, 9))])


def test_no_way_to_a_model_takes_thin_pictures(qwen: LoadedModel) -> None:
    """A few bytes of file would otherwise take gigabytes: the shorter side is scaled up before the rest is cropped."""
    mini, thin, least = load_model("mini"), Image.new("RGB", (1, 201)), Image.new("RGB", (1, 200))
    with pytest.raises(BadDataError, match="1 x 201 pixels"):
        encode_pictures(mini, [least, thin])
    with pytest.raises(BadDataError, match="1 x 201 pixels"):
        batch_inputs(mini, [thin], ["What?"])
    with pytest.raises(BadDataError, match="1 x 201 pixels"):
        clip_inputs(qwen, [[least, thin]], ["What?"])
    assert encode_pictures(mini, [least]).shape[1] == 1
