"""One pass per picture that is missing, the right layers, and nothing that is not a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from feature_stores import LAYERS, SHAPE, make_key, name_of, shard_size
from PIL import Image
from tiny_llava import GRID, tiny_llava
from torch import Tensor

from claspkit.cache import DTYPES, FeatureStore
from claspkit.cache.encoder import LoadedEncoder, feature_key
from claspkit.cache.encoding import EncodedPicture
from claspkit.cache.extract import extract
from claspkit.cache.layout import image_bytes
from claspkit.cache.merge import merge
from claspkit.cache.tensors import to_stored
from claspkit.profiles.errors import BadDataError, MismatchError, ResourceError, UsageError

DEPTH = 6


def picture(number: int) -> Image.Image:
    """A picture that is a number."""
    return Image.new("RGB", (4, 4), (number % 256, number // 256, 0))


def pictures(numbers: Sequence[int]) -> dict[str, Callable[[], Image.Image]]:
    """What :func:`extract` takes."""
    return {name_of(number): partial(picture, number) for number in numbers}


class FakeEncoder:
    """Layer l of picture p is filled with 100 l + p; counts what it is asked for."""

    def __init__(self, **bad: float) -> None:
        self.calls: list[list[int]] = []
        self._bad = {int(name.removeprefix("p")): value for name, value in bad.items()}

    def encode(self, images: Sequence[Image.Image]) -> Tensor:
        numbers = [image.getpixel((0, 0))[0] for image in images]  # type: ignore[index]
        self.calls.append([int(number) for number in numbers])
        layers = torch.arange(DEPTH + 1).view(1, -1, 1, 1) * 100.0
        hidden = (torch.tensor(numbers).view(-1, 1, 1, 1) + layers).expand(-1, -1, *SHAPE[1:]).clone()
        for row, number in enumerate(numbers):
            if number in self._bad:
                hidden[row, 2, 3, 4] = self._bad[int(number)]
        return hidden


def writing(folder: Path, dtype: str = "float16", **changes: Any) -> FeatureStore:
    """A store to extract into."""
    return FeatureStore.open(folder, make_key(dtype, **changes), write=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_wanted_layers_of_every_picture(dtype: str, tmp_path: Path) -> None:
    encoder, seen = FakeEncoder(), []
    with writing(tmp_path, dtype) as store:
        report = extract(
            encoder, pictures(range(7)), store, batch_size=3, progress=lambda *at: seen.append(at)
        )
        assert (report.vision_passes, report.images, report.bytes) == (7, 7, store.nbytes)
        for number in range(7):
            expected = torch.tensor([100.0 * layer + number for layer in LAYERS]).view(-1, 1, 1).expand(SHAPE)
            assert np.array_equal(store.read(name_of(number), LAYERS), to_stored(expected, dtype))
    assert encoder.calls == [[0, 1, 2], [3, 4, 5], [6, 6, 6]], "the last batch is filled up to the same shape"
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with writing(tmp_path) as store:
        extract(encoder, pictures([1, 4]), store, batch_size=2)
        report = extract(encoder, pictures([4, 2, 1, 3]), store, batch_size=2)
        assert (report.vision_passes, report.images) == (2, 4)
        again = extract(encoder, pictures([4, 2, 1, 3]), store, batch_size=2)
        assert (again.vision_passes, again.images, again.bytes) == (0, 4, 0)
    assert encoder.calls == [[1, 4], [2, 3]]


def test_a_dropped_shard_is_computed_anew(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    with writing(tmp_path) as store:
        extract(encoder, pictures(range(4)), store, batch_size=1, shard_bytes=shard_size(2))
        store.drop(store.shards[0].file)
        assert extract(encoder, pictures(range(4)), store, batch_size=1).vision_passes == 2
    assert encoder.calls[4:] == [[0], [1]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_from_the_model_names_the_pictures_and_keeps_the_others(value: float, tmp_path: Path) -> None:
    with writing(tmp_path) as store:
        with pytest.raises(BadDataError, match="NaN or infinity") as caught:
            extract(FakeEncoder(p5=value, p6=value), pictures(range(9)), store, batch_size=4)
        named = [number for number in range(9) if name_of(number) in str(caught.value)]
        assert named == [5, 6]
        assert store.missing(map(name_of, range(9))) == [name_of(number) for number in (5, 6, 8)]
        assert store.verify().ok


def test_a_value_too_large_for_float16_says_so(tmp_path: Path) -> None:
    with writing(tmp_path) as store, pytest.raises(BadDataError, match=r"too large for float16.*bfloat16"):
        extract(FakeEncoder(p1=70000.0), pictures(range(2)), store)
    with writing(tmp_path / "b", "bfloat16") as store:
        extract(FakeEncoder(p1=70000.0), pictures(range(2)), store)


def test_a_bad_value_in_a_layer_that_is_not_stored_does_not_matter(tmp_path: Path) -> None:
    with writing(tmp_path, layers=(0, 5)) as store:
        assert extract(FakeEncoder(p1=float("nan")), pictures(range(2)), store).images == 2


@pytest.mark.parametrize("changes", [{"tokens": 25}, {"width": 8}, {"layers": (0, 7)}])
def test_another_model_than_the_store_is_for(changes: dict[str, Any], tmp_path: Path) -> None:
    with writing(tmp_path, **changes) as store, pytest.raises(MismatchError, match="made for test"):
        extract(FakeEncoder(), pictures(range(2)), store)


def test_an_interruption_keeps_what_was_computed(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with writing(tmp_path) as store:
        with pytest.raises(KeyboardInterrupt):
            extract(FakeEncoder(), pictures(range(9)), store, batch_size=2, progress=stop)
        assert store.missing(map(name_of, range(9))) == [name_of(number) for number in range(4, 9)]


def test_a_picture_that_does_not_open_keeps_what_was_computed(tmp_path: Path) -> None:
    def broken() -> Image.Image:
        raise BadDataError("truncated picture 3")

    with writing(tmp_path) as store:
        with pytest.raises(BadDataError, match="truncated picture 3"):
            extract(FakeEncoder(), {**pictures(range(5)), name_of(3): broken}, store, batch_size=1)
        assert store.missing(map(name_of, range(5))) == [name_of(3), name_of(4)]


def test_what_is_rejected_is_left_out_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Pictures that do not open and pictures without numbers: named with their reasons, never stored."""

    def broken() -> Image.Image:
        raise BadDataError("truncated picture")

    rejects: dict[str, str] = {}
    seen: list[tuple[int, int]] = []
    sizes: list[int] = []
    encoder = FakeEncoder(p5=float("nan"), p7=70000.0)
    with writing(tmp_path) as store:
        report = extract(
            encoder,
            {**pictures(range(9)), name_of(0): broken, name_of(3): broken, name_of(8): broken},
            store,
            batch_size=3,
            progress=lambda *at: seen.append(at),
            written=sizes.append,
            reject=rejects.__setitem__,
        )
        assert (report.vision_passes, report.images, report.bytes) == (6, 4, store.nbytes)
        assert store.digests == {name_of(number) for number in (1, 2, 4, 6)}
        assert sizes == [count * image_bytes(store.key) for count in (2, 1, 1)]
    assert rejects.keys() == {name_of(number) for number in (0, 3, 5, 7, 8)}
    assert rejects[name_of(3)] == "truncated picture"
    assert "NaN or infinity" in rejects[name_of(5)]
    assert "too large for float16" in rejects[name_of(7)]
    assert encoder.calls == [[1, 2, 2], [4, 5, 5], [6, 7, 7]], "batches keep their shape"
    assert seen == [(3, 9), (6, 9), (9, 9)]


def test_a_batch_without_a_good_picture_is_no_pass(tmp_path: Path) -> None:
    """Nothing opens: nothing is computed, all are named."""

    def broken() -> Image.Image:
        raise BadDataError("gone")

    encoder, rejects = FakeEncoder(), dict[str, str]()
    with writing(tmp_path) as store:
        openers = dict.fromkeys(map(name_of, range(3)), broken)
        report = extract(encoder, openers, store, reject=rejects.__setitem__)
        assert (report.vision_passes, report.images, store.shards) == (0, 0, ())
    assert encoder.calls == []
    assert len(rejects) == 3


def test_too_little_space_is_said_before_any_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr("claspkit.cache.process.free_bytes", lambda _: 1000)
    with writing(tmp_path) as store, pytest.raises(ResourceError, match=r"\d+ bytes needed, 1000 free"):
        extract(encoder, pictures(range(5)), store)
    assert encoder.calls == []


def loaded_llava() -> Any:
    """The tiny random LLaVA as ``runtime`` would hand it over."""
    from transformers import CLIPImageProcessorPil

    from claspkit.runtime.families import find_family
    from claspkit.runtime.models import LoadedModel, ModelSource, describe

    model = tiny_llava()
    size = {"height": 24, "width": 24}
    processor = SimpleNamespace(image_processor=CLIPImageProcessorPil(size=size, crop_size=size))
    family = find_family(model)
    spec = describe(model, family, "tiny", None)
    return LoadedModel(model, processor, family, spec, ModelSource("tiny", "tiny", "tiny", None, True))


def noise(number: int) -> Image.Image:
    """A picture that no two layers agree on."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def test_a_real_tower_gives_the_layers_the_model_has(tmp_path: Path) -> None:
    loaded = loaded_llava()
    key = feature_key(loaded, dtype="float32")
    assert (key.model_id, key.layers, key.tokens, key.width) == ("tiny", (0, 1, 2, 3, 4), GRID * GRID, 32)
    with FeatureStore.open(tmp_path, key, write=True) as store:
        extract(loaded, {name_of(0): lambda: noise(0)}, store, batch_size=1)
        got = store.read(name_of(0), key.layers)
    pixels = loaded.processor.image_processor(images=[noise(0)], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        tower = loaded.model.model.vision_tower(pixels, output_hidden_states=True)
    for layer, hidden in enumerate(tower.hidden_states):
        assert np.array_equal(got[layer], hidden[0, 1:].numpy())
    assert torch.equal(LoadedEncoder(loaded).encode([noise(0)])[0], torch.from_numpy(got))


def test_layers_beyond_the_tower_are_refused() -> None:
    with pytest.raises(ValueError, match="vision layers 0 to 4"):
        feature_key(loaded_llava(), layers=(0, 5))


def test_the_bytes_do_not_depend_on_what_else_was_missing(tmp_path: Path) -> None:
    """The same picture alone, last in its batch, first, or among others: equal values."""
    loaded = loaded_llava()
    key = feature_key(loaded)
    orders = ([0], [1, 2, 3, 0], [0, 4, 5, 6], [7, 8, 9, 10, 11, 0], [1, 0])
    found = []
    for turn, order in enumerate(orders):
        with FeatureStore.open(tmp_path / str(turn), key, write=True) as store:
            openers = {name_of(number): partial(noise, number) for number in order}
            extract(loaded, openers, store, batch_size=4)
            found.append(store.read(name_of(0), key.layers))
    assert all(np.array_equal(found[0], other) for other in found[1:])


class FakePictureEncoder:
    """Picture p has 10 + p % 3 tokens, layer l filled with 100 l + p, and the grid (1, p + 1)."""

    def __init__(self, **bad: float) -> None:
        self.calls: list[int] = []
        self._bad = {int(name.removeprefix("p")): value for name, value in bad.items()}

    def tokens(self, image: Image.Image) -> int:
        """Foreseen rightly."""
        return 10 + self._number(image) % 3

    def encode_picture(self, image: Image.Image) -> EncodedPicture:
        """Note the call."""
        number = self._number(image)
        self.calls.append(number)
        layers = torch.arange(DEPTH + 1).view(-1, 1, 1) * 100.0 + number
        hidden = layers.expand(-1, self.tokens(image), SHAPE[2]).clone()
        hidden[2, 1, 0] = self._bad.get(number, float(hidden[2, 1, 0]))
        return EncodedPicture(hidden, (1, number + 1))

    @staticmethod
    def _number(image: Image.Image) -> int:
        return int(image.getpixel((0, 0))[0])  # type: ignore[index]


@pytest.mark.parametrize("dtype", DTYPES)
def test_pictures_of_differing_token_counts(dtype: str, tmp_path: Path) -> None:
    """One pass each, ordered so that equal counts share a shard; grids and values come back."""
    encoder, seen = FakePictureEncoder(), []
    with writing(tmp_path, dtype, tokens=None) as store:
        report = extract(
            encoder, pictures(range(7)), store, batch_size=4, progress=lambda *at: seen.append(at)
        )
        assert (report.vision_passes, report.images, report.bytes) == (7, 7, store.nbytes)
        assert encoder.calls == [0, 3, 6, 1, 4, 2, 5]
        assert seen == [(done, 7) for done in range(1, 8)]
        assert [entry.shape[::2] for entry in store.shards] == [(3, 10), (2, 11), (2, 12)]
        for number in range(7):
            shape = (len(LAYERS), 10 + number % 3, SHAPE[2])
            expected = torch.tensor([100.0 * layer + number for layer in LAYERS]).view(-1, 1, 1).expand(shape)
            assert np.array_equal(store.read(name_of(number), LAYERS), to_stored(expected, dtype))
            assert store.grid(name_of(number)) == (1, number + 1)
        assert extract(encoder, pictures(range(7)), store).vision_passes == 0


def test_a_wrong_forecast_costs_nothing_but_shards(tmp_path: Path) -> None:
    """Counts that turn out different: every picture is stored all the same."""
    encoder = FakePictureEncoder()
    encoder.tokens, real = (lambda image: 5), encoder.tokens  # type: ignore[method-assign]
    encoder.encode_picture = lambda image: EncodedPicture(torch.ones(7, real(image), SHAPE[2]), (1,))  # type: ignore[method-assign]
    with writing(tmp_path, tokens=None) as store:
        assert extract(encoder, pictures(range(5)), store).images == 5
        assert [entry.shape[2] for entry in store.shards] == [10, 11, 12, 10, 11]


def test_nan_in_one_of_them_keeps_the_others_before_it(tmp_path: Path) -> None:
    """Named, and what was computed stays."""
    with writing(tmp_path, tokens=None) as store:
        with pytest.raises(BadDataError, match=rf"NaN or infinity.*{name_of(4)}"):
            extract(FakePictureEncoder(p4=float("nan")), pictures(range(7)), store)
        assert store.missing(map(name_of, range(7))) == [name_of(number) for number in (2, 4, 5)]


def test_rejects_among_pictures_of_differing_token_counts(tmp_path: Path) -> None:
    """One that does not open is counted as done before anything is computed."""

    def broken() -> Image.Image:
        raise BadDataError("truncated picture")

    rejects: dict[str, str] = {}
    seen: list[tuple[int, int]] = []
    encoder = FakePictureEncoder(p4=float("nan"))
    with writing(tmp_path, tokens=None) as store:
        report = extract(
            encoder,
            {**pictures(range(5)), name_of(1): broken},
            store,
            progress=lambda *at: seen.append(at),
            reject=rejects.__setitem__,
        )
        assert (report.vision_passes, report.images) == (4, 3)
        assert store.digests == {name_of(number) for number in (0, 2, 3)}
    assert rejects.keys() == {name_of(1), name_of(4)}
    assert seen == [(done, 5) for done in (2, 3, 4, 5)]


def test_the_encoder_must_be_of_the_keys_kind(tmp_path: Path) -> None:
    """One grid for all, or one picture at a time: the key decides."""
    with writing(tmp_path / "a") as store, pytest.raises(MismatchError, match=r"encode\(\) is needed"):
        extract(FakePictureEncoder(), pictures(range(2)), store)
    with writing(tmp_path / "b", tokens=None) as store, pytest.raises(MismatchError, match="encode_picture"):
        extract(FakeEncoder(), pictures(range(2)), store)
    with writing(tmp_path / "c", tokens=None, width=8) as store, pytest.raises(MismatchError, match="any number of"):
        extract(FakePictureEncoder(), pictures(range(2)), store)


def test_workers_share_the_pictures_and_nothing_else(tmp_path: Path) -> None:
    """Every picture falls to exactly one worker, by its digest alone."""
    encoder, images = FakeEncoder(), pictures(range(20))
    for index in range(3):
        with writing(tmp_path / str(index)) as store:
            report = extract(encoder, images, store, batch_size=1, worker=(index, 3))
            mine = [number for number in range(20) if int(name_of(number), 16) % 3 == index]
            assert report.vision_passes == report.images == len(mine) > 0
            assert store.missing(map(name_of, mine)) == []
    assert sorted(number for call in encoder.calls for number in call) == list(range(20))


@pytest.mark.parametrize("worker", [(3, 3), (-1, 3), (0, 0)])
def test_a_worker_that_cannot_be(worker: tuple[int, int], tmp_path: Path) -> None:
    """Indices are 0 to count - 1."""
    with writing(tmp_path) as store, pytest.raises(UsageError, match="worker"):
        extract(FakeEncoder(), pictures(range(2)), store, worker=worker)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_make_the_bytes_that_one_makes(workers: int, tmp_path: Path) -> None:
    """A real tower, pictures in batches of four: the same values whoever computed them and with whom."""
    loaded = loaded_llava()
    key = feature_key(loaded)
    openers = {name_of(number): partial(noise, number) for number in range(10)}
    with FeatureStore.open(tmp_path / "alone", key, write=True) as alone:
        extract(loaded, openers, alone, batch_size=4)
        with FeatureStore.open(tmp_path / "merged", key, write=True) as merged:
            for index in range(workers):
                with FeatureStore.open(tmp_path / str(index), key, write=True) as store:
                    extract(loaded, openers, store, batch_size=4, worker=(index, workers))
                merge(merged, tmp_path / str(index))
            assert set(merged.digests) == set(alone.digests)
            for name in openers:
                assert np.array_equal(merged.read(name, key.layers), alone.read(name, key.layers))


def test_clips_are_for_encoders_that_take_them(tmp_path: Path) -> None:
    """A list of frames for an encoder of pictures, alike or not, is refused, and nothing is encoded."""
    openers = {name_of(0): lambda: [Image.new("RGB", (8, 8))] * 2}
    alike, varied = FakeEncoder(), FakePictureEncoder()
    with writing(tmp_path / "alike") as store, pytest.raises(UsageError, match="pictures only"):
        extract(alike, openers, store)
    with writing(tmp_path / "varied", tokens=None) as store, pytest.raises(UsageError, match="pictures only"):
        extract(varied, openers, store)
    assert (alike.calls, varied.calls) == ([], [])
