"""Qwen2.5-VL against the stock model: packed patches in window order, pictures and videos through one encoder."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tiny_internvl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llava import tiny_llava
from tiny_llava_next import fusing
from tiny_qwen2_5_vl import (
    FRAMES,
    IMAGE_TOKEN,
    MERGE,
    PATCH,
    PICTURES,
    VIDEO_TOKEN,
    VIDEOS,
    WINDOW,
    batch,
    build,
    full_inputs,
    patches,
)
from torch import Tensor
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_window_index

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families.llava import LlavaFamily
from claspkit.runtime.families.qwen2_5_vl import Qwen2_5VLFamily, window_order
from claspkit.runtime.saliency import merge_axes, rotate

FAMILY = Qwen2_5VLFamily()
KINDS = ("single", "padded", "several", "mixed", "text", "video", "both")
NEW_TOKENS = 8
SIDES = st.integers(1, 7).map(lambda cells: cells * MERGE)
GRIDS = st.tuples(st.integers(1, 3), SIDES, SIDES)


def test_facts_are_those_of_the_config() -> None:
    """The 7B: 1008 / 28 = 36 tokens along a side of the reference picture; the tiny model as it was built."""
    config = Qwen2_5_VLConfig(
        vision_config={"hidden_size": 1280},
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
    )
    facts = FAMILY.facts(cast(Any, SimpleNamespace(config=config)))
    assert (facts.visual_tokens, facts.scaling) == (1296, "share")
    assert (facts.vision_depth, facts.default_layer, facts.vision_width) == (32, 32, 1280)
    assert (facts.decoder_depth, facts.decoder_width, facts.ffn_width) == (28, 3584, 18944)
    assert (facts.heads, facts.kv_heads, facts.head_width) == (28, 4, None)
    model = build(depth=5)
    facts = FAMILY.facts(model)
    assert (facts.vision_depth, facts.default_layer, facts.vision_width, facts.decoder_depth) == (4, 4, 32, 5)
    assert FAMILY.placeholder_ids(model) == (IMAGE_TOKEN, VIDEO_TOKEN)


def test_the_decoder_is_where_its_text_goes() -> None:
    """The decoder takes embeddings, its layers project queries and keys, and the trunk holds both."""
    model = build(depth=5)
    decoder, layers = FAMILY.decoder(model), FAMILY.decoder_layers(model)
    seen: dict[str, Any] = {}
    handle = decoder.register_forward_pre_hook(lambda _, __, kwargs: seen.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        model(**batch("single"))
    handle.remove()
    assert seen["inputs_embeds"].shape == (1, 29, FAMILY.facts(model).decoder_width)
    assert seen["position_ids"].shape == (3, 1, 29)
    assert len(layers) == 5
    assert all(hasattr(layer.self_attn, name) for layer in layers for name in ("q_proj", "k_proj"))
    assert {*decoder.modules(), FAMILY.projector(model)} <= {*FAMILY.trunk(model).modules()}


def test_it_knows_its_own_models_only() -> None:
    """LLaVA-1.5, InternVL and Qwen2.5-VL are not taken for each other."""
    assert FAMILY.matches(build())
    assert not FAMILY.matches(tiny_llava())
    assert not FAMILY.matches(tiny_internvl.build())
    assert not LlavaFamily().matches(build())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_forward_over_the_answer_gives_the_logits_of_generate(kind: str, attention: str) -> None:
    """The stock model takes every kind of batch, and ``full_inputs`` puts it at the same positions."""
    model, inputs = build(attention), batch(kind)
    answer = model.generate(
        **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    start = inputs["input_ids"].shape[1]
    assert answer.sequences.shape[1] == start + NEW_TOKENS
    mask = torch.cat((inputs["attention_mask"], torch.ones(len(answer.sequences), NEW_TOKENS).long()), dim=1)
    with torch.no_grad():
        whole = model(**full_inputs(inputs, answer.sequences, mask), use_cache=False)
    assert torch.allclose(whole.logits[:, start - 1 : -1], torch.stack(answer.logits, dim=1), atol=1e-4)


@given(st.lists(GRIDS, min_size=1, max_size=3), st.lists(GRIDS, min_size=1, max_size=2))
@settings(max_examples=15, deadline=None)
def test_units_and_tokens_are_those_of_the_stock_model(
    pictures: list[tuple[int, int, int]], videos: list[tuple[int, int, int]]
) -> None:
    """Over many sizes: a token per feature that the model makes, a unit per patch it encodes; pictures come first."""
    model, generator = build(), torch.Generator().manual_seed(0)
    pixels, frames = patches(pictures, generator), patches(videos, generator)
    grids, video_grids = torch.tensor(pictures), torch.tensor(videos)
    image, video = FAMILY.visual_inputs(
        model,
        {
            "pixel_values": pixels,
            "image_grid_thw": grids,
            "pixel_values_videos": frames,
            "video_grid_thw": video_grids,
        },
    )
    with torch.no_grad():
        of_images = model.get_image_features(pixels, grids).pooler_output
        of_videos = model.get_video_features(frames, video_grids).pooler_output
    assert (image.tower, image.token_id) == ("image", IMAGE_TOKEN)
    assert (video.tower, video.token_id) == ("video", VIDEO_TOKEN)
    assert image.tokens == tuple(map(len, of_images))
    assert video.tokens == tuple(map(len, of_videos))
    assert (sum(image.units), sum(video.units)) == (len(pixels), len(frames))
    assert image.units == tuple(t * h * w for t, h, w in pictures)


def test_placeholders_of_a_batch_are_its_tokens() -> None:
    """The tiny batches are what the arithmetic says; without pixels, or with None, there is no picture."""
    model, inputs = build(), batch("both")
    found = FAMILY.visual_inputs(model, inputs)
    assert [visual.tokens for visual in found] == [(20, 12), (30, 24)]
    assert [sum(visual.tokens) for visual in found] == [
        int((inputs["input_ids"] == visual.token_id).sum()) for visual in found
    ]
    assert all(t * h * w == MERGE**2 * tokens for (t, h, w), tokens in (PICTURES | VIDEOS).items())
    assert FAMILY.visual_inputs(model, batch("text")) == ()
    assert FAMILY.visual_inputs(model, {"pixel_values": None, "image_grid_thw": None}) == ()


def test_pixels_without_their_grid_are_refused() -> None:
    """Packed pixels do not tell how large the pictures were."""
    inputs = batch("single")
    del inputs["image_grid_thw"]
    with pytest.raises(UsageError, match="pixel_values came without image_grid_thw"):
        FAMILY.visual_inputs(build(), inputs)


def test_units_of_a_picture_stay_together_in_every_layer() -> None:
    """Another second picture leaves the first picture's units as they are, bit for bit, and changes its own."""
    model, grids = build(), [(1, 6, 14), (1, 8, 10)]
    pixels = patches(grids, torch.Generator().manual_seed(0))
    changed = pixels.clone()
    changed[6 * 14 :] += 1
    with torch.no_grad():
        one, two = (
            model.model.visual(values, grid_thw=torch.tensor(grids), output_hidden_states=True).hidden_states
            for values in (pixels, changed)
        )
    for before, after in zip(one, two, strict=True):
        same = (before == after).all(dim=-1)
        assert same[: 6 * 14].all()
        assert not same[6 * 14 :].any()


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_the_walk_through_windows_is_the_stock_models(rows: int, columns: int, window: int) -> None:
    """Also where the last windows are smaller."""
    side = window * MERGE * PATCH
    stock, _ = get_vision_window_index(torch.tensor([[1, rows * MERGE, columns * MERGE]]), MERGE, side, PATCH)
    assert torch.equal(window_order(rows, columns, window), stock)


def test_a_walk_by_hand() -> None:
    """Three rows of five, windows of two: each window's cells before the next window's."""
    assert window_order(3, 5, 2).tolist() == [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text"])
def test_the_models_own_layer_is_its_own_projector_input_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    """All weight on the default layer: each merger call gets the very tensor that the stock model gives it."""
    model = build(dtype=dtype)
    inputs = {name: value.to(dtype) if name.startswith("pixel") else value for name, value in batch(kind).items()}
    own = {FAMILY.facts(model).default_layer: 1.0}
    visuals = FAMILY.visual_inputs(model, inputs)
    pictures = sum(len(visual.tokens) for visual in visuals)
    with torch.no_grad():
        stock = model(**inputs).logits
        with fusing(model, FAMILY, inputs, [own] * pictures) as swaps:
            fused = model(**inputs).logits
    assert len(swaps) == len(visuals)
    assert all(torch.equal(theirs, ours) for theirs, ours in swaps)
    assert torch.equal(stock, fused)


def test_every_picture_and_video_is_fused_with_its_own_weights() -> None:
    """Other weights for each: as each picture encoded alone, mixed and merged by hand, its windows undone by hand."""
    model, inputs = build(), batch("both")
    shares = [{2: 0.5, 4: 0.5}, {0: 1.0}, {1: 1 / 3, 4: 2 / 3}, {1: 0.25, 2: 0.75}]
    found: list[Tensor] = []
    handle = FAMILY.projector(model).register_forward_hook(lambda _, __, output: found.append(output))
    with torch.no_grad():
        with fusing(model, FAMILY, inputs, shares):
            logits = model(**inputs).logits
        handle.remove()
        wanted: list[Tensor] = []
        for pixels, grids in (("pixel_values", "image_grid_thw"), ("pixel_values_videos", "video_grid_thw")):
            alone = inputs[pixels].split(inputs[grids].prod(-1).tolist())
            wanted += [
                merged_by_hand(model, values, grid, share)
                for values, grid, share in zip(alone, inputs[grids], shares[len(wanted) :], strict=False)
            ]
        assert not torch.allclose(logits, model(**inputs).logits, atol=1e-2)
    walked = [
        tokens[window_order_of_frames(grid).argsort()]
        for output, grids in zip(found, (inputs["image_grid_thw"], inputs["video_grid_thw"]), strict=True)
        for tokens, grid in zip(output.split((grids.prod(-1) // 4).tolist()), grids, strict=True)
    ]
    assert len(walked) == len(wanted) == 4
    assert all(torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(walked, wanted, strict=True))


def merged_by_hand(model: Any, pixels: Tensor, grid: Tensor, share: dict[int, float]) -> Tensor:
    """One picture's tokens in raster order: a weighted sum of hidden states, normed and merged step by step."""
    visual = model.model.visual
    layers = visual(pixels, grid_thw=grid[None], output_hidden_states=True).hidden_states
    mixed = cast(Tensor, sum(weight * layers[layer] for layer, weight in share.items()))
    cells = visual.merger.ln_q(mixed).reshape(-1, MERGE * MERGE * mixed.shape[-1])
    tokens = torch.empty(len(cells), model.config.text_config.hidden_size)
    tokens[window_order_of_frames(grid)] = visual.merger.mlp(cells)
    return tokens


def window_order_of_frames(grid: Tensor) -> Tensor:
    """The walk through every frame of a video in turn."""
    frames, rows, columns = grid[0], grid[1] // MERGE, grid[2] // MERGE
    order = window_order(int(rows), int(columns), WINDOW)
    return torch.cat([order + frame * len(order) for frame in range(int(frames))])


def test_pictures_are_cut_as_the_image_processor_cuts_them() -> None:
    """``encode`` hands the encoder the patches and the grid that the stock image processor makes of each picture."""
    model, pixels = build(), torch.randn(2, 3, 4 * 28, 3 * 28, generator=torch.Generator().manual_seed(0))
    seen: dict[str, Tensor] = {}

    def note(_: Any, args: tuple[Tensor], kwargs: dict[str, Tensor]) -> None:
        seen.update(kwargs, hidden_states=args[0])

    handle = model.model.visual.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        FAMILY.encode(model, pixels)
    handle.remove()
    stock = [
        Qwen2VLImageProcessorPil().patchify(picture, patch_size=PATCH, merge_size=MERGE, temporal_patch_size=FRAMES)
        for picture in pixels.numpy()
    ]
    assert torch.equal(seen["hidden_states"], torch.from_numpy(np.concatenate([cut for cut, *_ in stock])))
    assert seen["grid_thw"].tolist() == [[1, height, width] for _, height, width in stock]


def test_projected_vision_layers_are_the_stock_models_features() -> None:
    """The last layer of ``vision_layers`` through ``project`` is what ``get_image_features`` returns, in its order."""
    model, pixels = build(), torch.randn(2, 3, 3 * 28, 5 * 28, generator=torch.Generator().manual_seed(0))
    layers = FAMILY.vision_layers(model, pixels)
    assert layers.shape == (5, 2, 60, 32)
    cut = [Qwen2VLImageProcessorPil().patchify(picture, PATCH, MERGE, FRAMES)[0] for picture in pixels.numpy()]
    grids = torch.tensor([[1, 6, 10]] * 2)
    with torch.no_grad():
        stock = model.get_image_features(torch.from_numpy(np.concatenate(cut)), grids).pooler_output
        found = FAMILY.project(model, layers[FAMILY.facts(model).default_layer])
        embedded = model.model.visual.patch_embed(torch.from_numpy(np.concatenate(cut)))
    assert torch.allclose(found, torch.stack(stock), atol=1e-5)
    assert torch.equal(layers[0].flatten(0, 1), embedded)


@pytest.mark.parametrize("shape", [(1, 3, 30, 28), (1, 3, 28, 30), (12, 1176)])
def test_pixels_that_do_not_fit_the_grid_are_refused(shape: tuple[int, ...]) -> None:
    """Sides of 28 pixels and their multiples, and no patches that are cut already."""
    with pytest.raises(UsageError, match="multiples of 28 pixels"):
        FAMILY.encode(build(), torch.zeros(shape))


def test_there_is_no_cls_token() -> None:
    """The refusal names what can be used instead."""
    with pytest.raises(UsageError, match=r"no \[CLS\] token.*saliency 'text' or 'last'"):
        FAMILY.cls_attention(build(), "image")


def test_rotary_embeddings_of_three_axes_become_those_of_the_attention() -> None:
    """Queries and keys turned by ``merge_axes`` give a layer's eager attention, in a prompt with a picture."""
    model, inputs = build("eager"), batch("single")
    attention: Any = FAMILY.decoder_layers(model)[2].self_attn
    seen: dict[str, Any] = {}
    handle = attention.register_forward_pre_hook(lambda _, __, kwargs: seen.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        maps = model(**inputs, output_attentions=True).attentions[2]
        handle.remove()
        sections = model.config.text_config.rope_parameters["mrope_section"]
        cos, sin = (merge_axes(part, sections) for part in seen["position_embeddings"])
        query, key = (
            rotate(side(seen["hidden_states"]).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2), cos, sin)
            for side in (attention.q_proj, attention.k_proj)
        )
        logits = query @ key.repeat_interleave(2, dim=1).transpose(-1, -2) * attention.scaling
        hidden = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
    assert torch.allclose(logits.masked_fill(hidden, -torch.inf).softmax(-1), maps, atol=1e-5)
