"""Families whose pictures differ in size: the records are the towers' layers, and fit the projector again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llava_next
import torch
from family_folders import save_folder
from feature_stores import name_of
from PIL import Image
from tiny_tokenizer import tiny_tokenizer
from torch import Tensor
from transformers import LlavaNextProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from claspkit.cache import FeatureStore
from claspkit.cache.encoder import LoadedEncoder, LoadedPictureEncoder, feature_key
from claspkit.cache.extract import extract
from claspkit.cache.merge import merge
from claspkit.profiles.errors import MismatchError
from claspkit.runtime.families import find_family
from claspkit.runtime.inputs import batch_inputs
from claspkit.runtime.models import LoadedModel, ModelSource, describe, load_model

SIZES = ((90, 60), (64, 64), (20, 70), (48, 24), (130, 40))  # width, height
TEMPLATE = (
    "{% for turn in messages %}{% for part in turn['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}:"
)


def llava_next() -> LoadedModel:
    """The tiny LLaVA-NeXT with a processor of its own sizes."""
    tiny, model = tiny_llava_next, tiny_llava_next.build()
    with torch.no_grad():
        model.resize_token_embeddings(600)
    side = {"height": tiny.SIDE, "width": tiny.SIDE}
    processor = LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": tiny.SIDE}, crop_size=side, image_grid_pinpoints=tiny.PINPOINTS
        ),
        tiny_tokenizer({"<image>": tiny.IMAGE_TOKEN}, TEMPLATE, image_token="<image>"),
        patch_size=tiny.SIDE // tiny.GRID,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    family = find_family(model)
    spec = describe(model, family, "tiny", None)
    return LoadedModel(model, processor, family, spec, ModelSource("tiny", "tiny", "tiny", None, True))


@pytest.fixture(scope="module", params=["llava-next", "qwen2.5-vl", "internvl", "video-llava"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A family's tiny model with its processor."""
    if request.param == "llava-next":
        return llava_next()
    folder = tmp_path_factory.mktemp("model")
    save_folder(request.param, folder)
    return load_model(str(folder))


def picture(number: int) -> Image.Image:
    """A picture that no two layers agree on, of the size whose turn it is."""
    width, height = SIZES[number % len(SIZES)]
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8))


def openers(count: int) -> dict[str, Callable[[], Image.Image]]:
    """What :func:`extract` takes."""
    return {name_of(number): partial(picture, number) for number in range(count)}


def stock_layers(loaded: LoadedModel, inputs: Any) -> Tensor:
    """All layers of the picture in a batch of one, by the stock tower itself: (L + 1, tokens, D)."""
    model = loaded.model
    with torch.inference_mode():
        if loaded.family.id == "qwen2.5-vl":
            return _stock_qwen(model.model.visual, inputs["pixel_values"], inputs["image_grid_thw"])
        tower = model.model.image_tower if loaded.family.id == "video-llava" else model.model.vision_tower
        pixels = inputs["pixel_values"] if "pixel_values" in inputs else inputs["pixel_values_images"]
        hidden = tower(pixels.flatten(0, -4), output_hidden_states=True).hidden_states
    return torch.stack([layer[:, 1:].flatten(0, 1) for layer in hidden])


def _stock_qwen(visual: Any, pixels: Tensor, grid: Tensor) -> Tensor:
    """As the blocks see them, put back into the order of the packed patches, each of which is known by its values."""
    seen: list[Tensor] = []
    handles = [visual.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))]
    handles += [block.register_forward_hook(lambda _, __, output: seen.append(output)) for block in visual.blocks]
    visual(pixels, grid_thw=grid)
    for handle in handles:
        handle.remove()
    return torch.stack(seen)[:, (visual.patch_embed(pixels)[:, None] == seen[0]).all(dim=-1).int().argmax(dim=1)]


def expected_grid(loaded: LoadedModel, inputs: Any, image: Image.Image) -> tuple[int, ...]:
    """By hand: what the processor says of one picture."""
    if loaded.family.id == "qwen2.5-vl":
        return tuple(inputs["image_grid_thw"][0].tolist())
    if loaded.family.id == "llava-next":
        return image.height, image.width
    return (len(inputs["pixel_values"] if "pixel_values" in inputs else inputs["pixel_values_images"]),)


def pixels_of(inputs: Any) -> dict[str, Tensor]:
    """What of a batch the vision encoder takes."""
    return {name: value for name, value in inputs.items() if name in ("pixel_values", "image_grid_thw")}


def test_records_are_the_layers_of_the_stock_tower(loaded: LoadedModel, tmp_path: Path) -> None:
    """Every layer of every picture, bit for bit, its grid, and one pass per picture."""
    key = feature_key(loaded, dtype="float32")
    assert (key.tokens, key.layers) == (None, (0, 1, 2, 3, 4))
    with FeatureStore.open(tmp_path, key, write=True) as store:
        assert extract(loaded, openers(5), store, batch_size=4).vision_passes == 5
        for number in range(5):
            name, inputs = name_of(number), batch_inputs(loaded, [picture(number)], ["What?"])
            wanted = stock_layers(loaded, inputs)
            got = store.read(name, key.layers)
            assert store.shape(name) == got.shape == tuple(wanted.shape)
            assert torch.equal(torch.from_numpy(got), wanted)
            assert store.grid(name) == expected_grid(loaded, inputs, picture(number))


def test_a_record_projects_to_what_the_stock_model_sees(loaded: LoadedModel, tmp_path: Path) -> None:
    """The stock model's own layer out of the store, unit by unit through the projector: its visual features."""
    model, family = loaded.model, loaded.family
    layer = loaded.spec.default_layer
    key = feature_key(loaded, layers=(layer,), dtype="float32")
    with FeatureStore.open(tmp_path, key, write=True) as store:
        extract(loaded, openers(3), store)
        for number in range(3):
            inputs = batch_inputs(loaded, [picture(number)], ["What?"])
            record = torch.from_numpy(store.read(name_of(number), (layer,)))
            with torch.inference_mode():
                if family.id == "qwen2.5-vl":
                    (wanted,), units = model.model.get_image_features(**pixels_of(inputs)).pooler_output, 1
                else:
                    seen: list[Tensor] = []
                    handle = family.projector(model).register_forward_hook(lambda _, __, out, to=seen: to.append(out))
                    model(**inputs)
                    handle.remove()
                    wanted, units = seen[0].flatten(0, -2), len(seen[0])
                features = family.project(model, record.unflatten(1, (units, -1))[0])
            torch.testing.assert_close(features.flatten(0, 1), wanted, rtol=0, atol=1e-6)


def test_token_counts_are_foreseen(loaded: LoadedModel) -> None:
    """What orders the pictures and asks for space is what comes out."""
    encoder = LoadedPictureEncoder(loaded)
    for number in range(5):
        assert encoder.tokens(picture(number)) == encoder.encode_picture(picture(number)).layers.shape[1]


def test_a_subset_of_layers_is_those_layers(loaded: LoadedModel, tmp_path: Path) -> None:
    """The key names the layers, and the values are those of a store with all of them."""
    every, some = feature_key(loaded), feature_key(loaded, layers=(1, 3))
    assert (some.layers, some.digest == every.digest) == ((1, 3), False)
    with (
        FeatureStore.open(tmp_path / "every", every, write=True) as whole,
        FeatureStore.open(tmp_path / "some", some, write=True) as part,
    ):
        extract(loaded, openers(3), whole)
        extract(loaded, openers(3), part)
        for number in range(3):
            assert np.array_equal(part.read(name_of(number), (3, 1)), whole.read(name_of(number), (3, 1)))
        with pytest.raises(MismatchError, match=r"layers \[2\]"):
            part.read(name_of(0), (2,))


def test_workers_make_the_bytes_that_one_makes(loaded: LoadedModel, tmp_path: Path) -> None:
    """Each picture once, by the worker whose it is; merged, equal to the store that one process fills."""
    key, workers = feature_key(loaded), 2
    with FeatureStore.open(tmp_path / "alone", key, write=True) as alone:
        extract(loaded, openers(5), alone)
        passes = []
        for index in range(workers):
            with FeatureStore.open(tmp_path / f"features-{index}", key, write=True) as store:
                passes.append(extract(loaded, openers(5), store, worker=(index, workers)).vision_passes)
        assert sum(passes) == 5
        with FeatureStore.open(tmp_path / "merged", key, write=True) as merged:
            assert sum(merge(merged, tmp_path / f"features-{index}") for index in range(workers)) == 5
            assert merged.verify().ok
            for name in openers(5):
                assert np.array_equal(merged.read(name, key.layers), alone.read(name, key.layers))
                assert merged.grid(name) == alone.grid(name)


def test_the_fixed_encoder_is_not_for_them(loaded: LoadedModel, tmp_path: Path) -> None:
    """An encoder of one grid does not fit a key without a token count."""
    with (
        FeatureStore.open(tmp_path, feature_key(loaded), write=True) as store,
        pytest.raises(MismatchError, match="token counts differ"),
    ):
        extract(LoadedEncoder(loaded), openers(1), store)
