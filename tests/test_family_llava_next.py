"""LLaVA-NeXT against the stock model: tokens of any picture size, fusion over tiles, [CLS] scores and newlines."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_llava import tiny_llava
from tiny_llava_next import GRID, IMAGE_TOKEN, PICTURES, SIDE, batch, build, full_inputs, fusing
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextModel

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families.llava import LlavaFamily
from claspkit.runtime.families.llava_next import LlavaNextFamily

FAMILY = LlavaNextFamily()
KINDS = ("single", "padded", "several", "mixed", "text")
WITH_PICTURES = KINDS[:-1]
NEW_TOKENS = 8
CONFIG = LlavaNextConfig()  # that of the 7B: tiles of 336 pixels and 24 x 24 patches


def configured(config: Any = CONFIG) -> Any:
    """A stand-in for a model of this config: what the family reads from the config needs no weights."""
    return cast(Any, SimpleNamespace(config=config))


def test_facts_are_those_of_the_config() -> None:
    """The 7B has 5 tiles of 576 tokens at most and reads layer 23 of 24; the tiny one as it was built."""
    facts = FAMILY.facts(configured())
    assert (facts.visual_tokens, facts.vision_depth, facts.default_layer, facts.scaling) == (2880, 24, 23, "absolute")
    model = build(depth=5)
    facts = FAMILY.facts(model)
    assert (facts.visual_tokens, facts.vision_depth, facts.default_layer) == (5 * GRID * GRID, 4, 3)
    assert (facts.decoder_depth, facts.decoder_width, facts.heads, facts.kv_heads) == (5, 32, 4, 2)
    assert len(FAMILY.decoder_layers(model)) == facts.decoder_depth
    assert len(FAMILY.towers(model)["image"]) == facts.vision_depth


def test_it_knows_its_own_models_only() -> None:
    """LLaVA-1.5 and LLaVA-NeXT are not taken for each other, nor is a NeXT that reads several layers."""
    model, other = build(), tiny_llava()
    assert FAMILY.matches(model)
    assert not FAMILY.matches(other)
    assert not LlavaFamily().matches(model)
    model.config.vision_feature_layer = [-2, -1]
    assert not FAMILY.matches(model)


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
        logits = model(**full_inputs(inputs, answer.sequences, mask)).logits[:, start - 1 : -1]
    assert torch.allclose(logits, torch.stack(answer.logits, dim=1), atol=1e-4)


@pytest.mark.parametrize("flat", [False, True])
def test_tiles_and_tokens_are_those_of_the_stock_model(flat: bool) -> None:
    """Counts by hand, counts of the family and sizes of ``get_image_features`` agree, tiles padded or flat."""
    model = build()
    sizes = torch.tensor(list(PICTURES))
    tiles = [count for count, _ in PICTURES.values()]
    shape = (sum(tiles),) if flat else (len(tiles), max(tiles))
    inputs = {"pixel_values": torch.randn(*shape, 3, SIDE, SIDE), "image_sizes": sizes}
    (visual,) = FAMILY.visual_inputs(model, inputs)
    with torch.no_grad():
        features = model.model.get_image_features(**inputs).pooler_output
    assert visual.tokens == tuple(len(picture) for picture in features) == tuple(n for _, n in PICTURES.values())
    assert visual.units == tuple(tiles)
    assert (visual.tower, visual.token_id) == ("image", IMAGE_TOKEN)


@pytest.mark.parametrize(
    ("size", "layout"),
    [
        ((672, 672), (5, 2928)),  # 576 + 48 * (48 + 1)
        ((480, 640), (5, 2340)),  # 640 fills 48 columns, 480 then 36 rows: 576 + 36 * (48 + 1)
        ((336, 1008), (4, 2328)),  # 576 + 24 * (72 + 1)
        ((1000, 100), (4, 1224)),  # 72 rows, 7.2 columns: 8 on each side cut, 8 left: 576 + 72 * (8 + 1)
        ((799, 376), (4, 1876)),  # 799 * 24 / 376 is 51 rows, though not in floating point: 576 + 52 * (24 + 1)
        ((1, 3000), (3, 576)),  # less than a pixel high on every pinpoint: the first; all 24 rows are padding
    ],
)
def test_layout_of_known_sizes(size: tuple[int, int], layout: tuple[int, int]) -> None:
    """Tiles and tokens of the 7B, by hand."""
    assert FAMILY.picture_layout(configured(), size) == layout


@given(st.integers(1, 3000), st.integers(1, 3000))
@example(328, 861)
@example(1008, 335)
def test_layout_of_any_size_is_the_models(height: int, width: int) -> None:
    """As many tokens as ``pack_image_features`` makes of as many tiles, for pictures of any size."""
    tiles, tokens = FAMILY.picture_layout(configured(), (height, width))
    packed, _ = LlavaNextModel.pack_image_features(
        configured(), [torch.zeros(tiles, 576, 1)], [(height, width)], "default", torch.zeros(1)
    )
    assert len(packed[0]) == tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", WITH_PICTURES)
def test_the_models_own_layer_is_its_own_projector_input_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    """All weight on the default layer: the projector gets the very tensor that the stock model gives it."""
    model = build(dtype=dtype)
    inputs = cast_pixels(batch(kind), dtype)
    own = {FAMILY.facts(model).default_layer: 1.0}
    pictures = sum(len(visual.tokens) for visual in FAMILY.visual_inputs(model, inputs))
    with torch.no_grad(), fusing(model, FAMILY, inputs, [own] * pictures) as swaps:
        model(**inputs)
    assert len(swaps) == 1
    assert torch.equal(*swaps[0])


def cast_pixels(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The batch with its pixels in the dtype of the model."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}


def test_every_picture_is_fused_with_its_own_weights() -> None:
    """Half and half, a third and two thirds, the embeddings alone: as from the tower's hidden states, by hand."""
    model, inputs = build(), batch("padded")
    shares = [{1: 0.5, 3: 0.5}, {2: 1 / 3, 4: 2 / 3}, {0: 1.0}]
    with torch.no_grad():
        with fusing(model, FAMILY, inputs, shares):
            found = model(**inputs).image_hidden_states
        wanted = []
        for pixels, size, share in zip(inputs["pixel_values"], inputs["image_sizes"], shares, strict=True):
            tiles = PICTURES[tuple(size.tolist())][0]
            layers = model.model.vision_tower(pixels[:tiles], output_hidden_states=True).hidden_states
            fused = sum(weight * layers[layer][:, 1:] for layer, weight in share.items())
            features = model.model.multi_modal_projector(fused)
            newline = model.model.image_newline
            packed, _ = model.model.pack_image_features([features], size[None], "default", newline)
            wanted.append(packed[0])
        stock = model(**inputs).image_hidden_states
    assert torch.allclose(found, torch.cat(wanted), atol=1e-4)
    assert not torch.allclose(found, stock, atol=1e-2)


def test_cls_scores_lie_where_their_patches_do() -> None:
    """Scores of the eager tower's [CLS] row, laid out by hand: overview, then rows of the close-up, 0 for newlines."""
    model, inputs = build("eager"), batch("padded")
    layer = FAMILY.facts(model).default_layer
    tiles = torch.cat(
        [
            pixels[: PICTURES[tuple(size.tolist())][0]]
            for pixels, size in zip(inputs["pixel_values"], inputs["image_sizes"], strict=True)
        ]
    )
    with torch.no_grad():
        maps = model.model.vision_tower(tiles, output_attentions=True).attentions[layer - 1]
    scores = maps[:, :, 0].mean(1)  # (tiles, 1 + patches)
    # Close-up tiles per row, tiles per column, and the rows of patches that show the picture.
    grids = {(14, 48): (1, 2, range(1, 2)), (48, 48): (2, 2, range(6)), (24, 72): (1, 3, range(3))}
    start, wanted = 0, []
    for size in inputs["image_sizes"].tolist():
        rows, columns, shown = grids[tuple(size)]
        mine = scores[start : start + 1 + rows * columns, 1:].tolist()
        start += 1 + rows * columns
        line = list(mine[0])
        for row in shown:
            for column in range(columns * GRID):
                tile = 1 + row // GRID * columns + column // GRID
                line.append(mine[tile][row % GRID * GRID + column % GRID])
            line.append(0.0)
        wanted.append(line)
    found = FAMILY.cls_tokens(model, scores, inputs, "image")
    assert [score.tolist() for score in found] == wanted


def test_cls_attention_is_that_of_the_layer_the_model_reads() -> None:
    """Softmax over the module's own queries and keys gives the tower's eager attention of that layer."""
    model = build("eager")
    attention: Any = FAMILY.cls_attention(model, "image")
    seen: list[Tensor] = []
    handle = attention.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        maps = model.model.vision_tower(torch.randn(2, 3, SIDE, SIDE), output_attentions=True).attentions
        handle.remove()
        query, key = (
            side(seen[0]).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for side in (attention.q_proj, attention.k_proj)
        )
        rows = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
    assert torch.allclose(rows, maps[FAMILY.facts(model).default_layer - 1], atol=1e-5)


def test_encoding_padded_tiles_runs_each_of_them_once() -> None:
    """(pictures, tiles, 3, H, W) reaches the tower as one batch of tiles; (tiles, 3, H, W) as it is."""
    model = build()
    seen: list[int] = []
    FAMILY.towers(model)["image"][0].register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
    with torch.no_grad():
        FAMILY.encode(model, torch.randn(2, 3, 3, SIDE, SIDE))
        FAMILY.encode(model, torch.randn(4, 3, SIDE, SIDE))
    assert seen == [6, 4]


def test_pixels_that_do_not_fit_their_sizes_are_refused() -> None:
    """Missing ``image_sizes``, one too few, and flat tiles that do not add up; no pictures are no error."""
    model = build()
    pixels = torch.zeros(2, 5, 3, SIDE, SIDE)
    with pytest.raises(UsageError, match="without image_sizes"):
        FAMILY.visual_inputs(model, {"pixel_values": pixels})
    with pytest.raises(UsageError, match="must have 1 entries"):
        FAMILY.visual_inputs(model, {"pixel_values": pixels, "image_sizes": [(48, 48)]})
    with pytest.raises(UsageError, match=r"of \[5, 3\] tiles, so pixel_values must have 8"):
        FAMILY.visual_inputs(model, {"pixel_values": pixels.flatten(0, 1), "image_sizes": [(48, 48), (24, 48)]})
    assert FAMILY.visual_inputs(model, {"pixel_values": None, "image_sizes": None}) == ()
    assert FAMILY.visual_inputs(model, {"pixel_values": pixels[:0], "image_sizes": []}) == ()
