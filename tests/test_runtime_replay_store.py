"""From a feature store to answers: batches made of grids, pictures of different sizes and clips of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from family_folders import MODELS, load_tiny
from family_oracles import generate
from PIL import Image
from test_runtime_replay import difference, encoder_calls

from claspkit.cache.encoder import LoadedPictureEncoder, feature_key
from claspkit.cache.extract import extract
from claspkit.cache.store import FeatureStore
from claspkit.calib.feeding import Feed
from claspkit.calib.samples import Sample, Source, make_sample
from claspkit.profiles.errors import UsageError
from claspkit.runtime.inputs import batch_inputs, clip_inputs
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import inputs_from_grids, replay

SIZES = ((90, 60), (64, 64), (20, 70))  # width, height
QUESTIONS = ["How many stars are there?", "What is it?", "Is <image> this text <img> a place?"]
TAKE_CLIPS = ("qwen2.5-vl", "video-llava")
FRAMES = 5


@pytest.fixture(scope="module", params=list(MODELS))
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A family's tiny model with its processor."""
    return load_tiny(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module", params=TAKE_CLIPS)
def clip_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A tiny model that takes videos."""
    return load_tiny(request.param, tmp_path_factory.mktemp("model"))


def noise(number: int, size: tuple[int, int]) -> Image.Image:
    """A picture that no two layers agree on."""
    width, height = size
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


PICTURES = [noise(number, size) for number, size in enumerate(SIZES)]
CLIPS = [[noise(10 * clip + frame, SIZES[clip]) for frame in range(FRAMES)] for clip in range(2)]


def sample(number: int) -> Sample:
    """A question about picture ``number``, whose digest is that number."""
    return make_sample(
        image=f"{number}.png",
        image_sha256=f"{number:064x}",
        prompt=QUESTIONS[number],
        answers=["a"],
        source=Source("test", None, None, number),
    )


def filled(loaded: LoadedModel, folder: Path, things: Sequence[Any]) -> FeatureStore:
    """A float32 store of these pictures or clips, open for reading."""
    key = feature_key(loaded, dtype="float32")
    with FeatureStore.open(folder, key, write=True) as store:
        openers = {f"{number:064x}": partial(lambda thing: thing, thing) for number, thing in enumerate(things)}
        assert extract(loaded, openers, store).vision_passes == len(things)
    return FeatureStore.open(folder, key)


def same_but_pixels(made: Any, wanted: Any) -> bool:
    """Whether two batches have the same names, shapes and dtypes, and values but for pixels."""
    assert set(made) == set(wanted)
    for name, value in wanted.items():
        assert (made[name].shape, made[name].dtype) == (value.shape, value.dtype), name
        if name.startswith("pixel"):
            assert made[name].untyped_storage().nbytes() <= 8
            assert not made[name].any()
        else:
            assert torch.equal(made[name], value), name
    return True


def test_batches_are_those_of_the_processor(loaded: LoadedModel) -> None:
    """Ids, masks, sizes, grids and token types made from records' grids alone; pixels that take no memory."""
    encoder = LoadedPictureEncoder(loaded)
    grids = [encoder.encode_picture(picture).grid for picture in PICTURES]
    prompts = [prompt.replace("<image>", "") for prompt in QUESTIONS]
    assert same_but_pixels(inputs_from_grids(loaded, grids, prompts), batch_inputs(loaded, PICTURES, prompts))
    with pytest.raises(UsageError, match="got 3 records, 2 prompts"):
        inputs_from_grids(loaded, grids, prompts[:2])


@pytest.mark.parametrize("rho", [None, 0.0, 0.4])
def test_cached_outcomes_are_the_runtimes(loaded: LoadedModel, rho: float | None, tmp_path: Path) -> None:
    """Pictures of three sizes in a batch: the search's answers from the store are the pruner's on pixels.

    ``rho`` None is the stock model.
    """
    model, family, layer = loaded.model, loaded.family, loaded.spec.default_layer
    facts = family.facts(model)
    share = facts.visual_tokens
    stages = () if rho is None else ((1, share // 2), (3, share // 5))
    layers, weights = ((layer,), (1.0,)) if rho is None else ((1, 2, layer), (0.2, 0.3, 0.5))

    def plan(row: RowPlan) -> PrunePlan:
        return PrunePlan(stages, (row,) * 3, scaling=facts.scaling, visual_tokens=share)

    samples = [sample(number) for number in range(3)]
    inputs = batch_inputs(loaded, PICTURES, [each.prompt for each in samples])
    with apply_plan(model, family, plan(RowPlan(layers, weights, rho or 0.0))):
        wanted = generate(model, inputs)
    with filled(loaded, tmp_path, PICTURES) as store, encoder_calls(model, family) as calls:
        _, fused = Feed(loaded, store).read(samples, [((0,), (1.0,)), (layers, weights)])
        (got,) = fused.ask([plan(RowPlan((layer,), (1.0,), rho or 0.0))], 16)
        model.generation_config.repetition_penalty = 1.0 + 1e-12  # anything but 1 is left to generate()
        (generated,) = fused.ask([plan(RowPlan((layer,), (1.0,), rho or 0.0))], 16)
        model.generation_config.repetition_penalty = 1.0
    assert calls == []
    assert torch.equal(got.ids, wanted.sequences[:, inputs["input_ids"].shape[1] :])
    assert torch.equal(generated.ids, got.ids)
    assert generated.lengths == got.lengths


def test_questions_about_one_picture_share_its_record(
    loaded: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two questions about a picture: it is read once, and each answer is that of a block of two records."""
    layer = loaded.spec.default_layer
    plan = PrunePlan((), (RowPlan((layer,), (1.0,), 1.0),) * 2)
    other = replace(sample(0), prompt=QUESTIONS[1])
    copy = replace(other, image_sha256=f"{1:064x}")
    reads: list[str] = []
    read = FeatureStore.read

    def noted(store: FeatureStore, image: str, *rest: Any) -> Any:
        reads.append(image)
        return read(store, image, *rest)

    monkeypatch.setattr(FeatureStore, "read", noted)
    with filled(loaded, tmp_path, [PICTURES[0], PICTURES[0]]) as store:
        feed = Feed(loaded, store)
        ((shared,), (apart,)) = (
            block.ask([plan], 4)
            for samples in ([sample(0), other], [sample(0), copy])
            for block in feed.read(samples, [((layer,), (1.0,))])
        )
    assert reads == [f"{number:064x}" for number in (0, 0, 1)]
    assert torch.equal(shared.ids, apart.ids)


def test_a_clip_is_the_towers_layers_and_replays(clip_model: LoadedModel, tmp_path: Path) -> None:
    """Frames in the store: the model's own answer about the video, from a batch that was made of grids."""
    model, family = clip_model.model, clip_model.family
    layer, encoder = clip_model.spec.default_layer, LoadedPictureEncoder(clip_model)
    inputs = clip_inputs(clip_model, CLIPS, QUESTIONS[:2])
    wanted = generate(model, inputs)
    with filled(clip_model, tmp_path, CLIPS) as store:
        names = list(store.digests)
        grids = [store.grid(f"{number:064x}") for number in range(2)]
        records = [torch.from_numpy(store.read(f"{number:064x}", (layer,)))[0] for number in range(2)]
        tokens = [encoder.clip_tokens(clip) for clip in CLIPS]
        assert sorted(tokens) == sorted(store.shape(name)[1] for name in names)
    assert {len(grid) for grid in grids} == {4 if family.id == "qwen2.5-vl" else 3}
    assert [grid[-1] if len(grid) == 4 else grid[0] for grid in grids] == [FRAMES, FRAMES]
    made = inputs_from_grids(clip_model, grids, QUESTIONS[:2])
    assert same_but_pixels(made, inputs)
    with replay(model, family, records, grids), encoder_calls(model, family) as calls:
        got = generate(model, made)
    assert calls == []
    assert difference(wanted, got) <= 1e-5


def test_pictures_and_clips_lie_in_one_store_and_batch(clip_model: LoadedModel, tmp_path: Path) -> None:
    """A picture, a clip, a picture: each row's answer is that of its own batch, as far as padding allows."""
    model, family, layer = clip_model.model, clip_model.family, clip_model.spec.default_layer
    with filled(clip_model, tmp_path, [PICTURES[0], CLIPS[1], PICTURES[2]]) as store:
        grids = [store.grid(f"{number:064x}") for number in range(3)]
        records = [torch.from_numpy(store.read(f"{number:064x}", (layer,)))[0] for number in range(3)]
    assert [family.record_tower(grid) for grid in grids] == ["image", "video", "image"]
    prompts = ["What is it?"] * 3
    together = inputs_from_grids(clip_model, grids, prompts)
    with replay(model, family, records, grids):
        got = generate(model, together)
    inputs = [
        batch_inputs(clip_model, [PICTURES[0]], prompts[:1]),
        clip_inputs(clip_model, [CLIPS[1]], prompts[:1]),
        batch_inputs(clip_model, [PICTURES[2]], prompts[:1]),
    ]
    for row, own in enumerate(inputs):
        alone = generate(model, own)
        first = float((got.logits[0][row] - alone.logits[0][0]).abs().max())
        assert first <= 1e-4 * float(alone.logits[0].abs().max())


def test_clips_are_refused_where_they_are_of_no_use(loaded: LoadedModel, tmp_path: Path) -> None:
    """A model without a video encoder says so before anything is computed; frames must be of one size and alike."""
    key = feature_key(loaded)
    with FeatureStore.open(tmp_path, key, write=True) as store:
        if loaded.family.id not in TAKE_CLIPS:
            with pytest.raises(UsageError, match="take pictures only"):
                extract(loaded, {"0" * 64: lambda: CLIPS[0], "1" * 64: lambda: PICTURES[0]}, store)
            assert list(store.digests) == []
        else:
            with pytest.raises(UsageError, match="at least one"):
                clip_inputs(loaded, [[]], ["What?"])
    if loaded.family.id == "qwen2.5-vl":
        with pytest.raises(UsageError, match="all of one size"):
            clip_inputs(loaded, [[PICTURES[0], PICTURES[1]]], ["What?"])
    if loaded.family.id == "video-llava":
        with pytest.raises(UsageError, match="equally many of each"):
            inputs_from_grids(loaded, [(3, 4, 4), (2, 4, 4)], ["a", "b"])
