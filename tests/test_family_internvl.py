"""InternVL against the stock model: tiles, the pixel shuffle, the final norm, and [CLS] scores."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import tiny_qwen2_5_vl
import torch
from tiny_internvl import GRID, IMAGE_TOKEN, SIDE, TOKENS, batch, build, full_inputs
from tiny_llava import tiny_llava
from tiny_llava_next import fusing
from torch import Tensor
from transformers import InternVLConfig, Qwen2Config

from claspkit.runtime.families.internvl import InternVLFamily
from claspkit.runtime.families.llava import LlavaFamily
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

FAMILY = InternVLFamily()
KINDS = ("single", "padded", "several", "mixed", "text")
NEW_TOKENS = 8
FORMS: list[dict[str, Any]] = [{}, {"mean_pooling": False}, {"feature_layer": -2}, {"feature_layer": 4}]


def test_facts_are_those_of_the_config() -> None:
    """InternVL3: 448 pixels, patches of 14, four to a token: 256 tokens per tile; the tiny model as it was built."""
    config = InternVLConfig(text_config=Qwen2Config(hidden_size=896, num_attention_heads=14, num_key_value_heads=2))
    facts = FAMILY.facts(cast(Any, SimpleNamespace(config=config)))
    assert (facts.visual_tokens, facts.scaling) == ((448 // 14 // 2) ** 2, "share")
    assert (facts.vision_depth, facts.default_layer, facts.vision_width) == (24, 24, 1024)
    assert (facts.decoder_width, facts.heads, facts.kv_heads) == (896, 14, 2)
    model = build(depth=5)
    facts = FAMILY.facts(model)
    assert (facts.visual_tokens, facts.vision_depth, facts.default_layer) == (TOKENS, 4, 4)
    assert (facts.decoder_depth, facts.decoder_width, facts.ffn_width, facts.head_width) == (5, 32, 64, 8)
    assert FAMILY.facts(build(feature_layer=-2)).default_layer == 3
    assert FAMILY.placeholder_ids(model) == (IMAGE_TOKEN,)


@pytest.mark.parametrize("text", ["qwen2", "qwen3", "llama"])
def test_any_text_model_is_handed_out(text: str) -> None:
    """Whatever the decoder is: it takes the embeddings, and its layers project queries and keys."""
    model = build(text=text, depth=5)
    seen: dict[str, Any] = {}
    decoder = FAMILY.decoder(model)
    handle = decoder.register_forward_pre_hook(lambda _, __, kwargs: seen.update(kwargs), with_kwargs=True)
    with torch.no_grad():
        model(**batch("single"))
    handle.remove()
    assert seen["inputs_embeds"].shape == (1, 34, 32)
    assert len(FAMILY.decoder_layers(model)) == 5
    attentions = [cast(Any, layer.self_attn) for layer in FAMILY.decoder_layers(model)]
    assert all(hasattr(attention, name) for attention in attentions for name in ("q_proj", "k_proj"))


def test_it_knows_its_own_models_only() -> None:
    """Other families' models are not taken for it, nor is one that reads several layers or keeps [CLS]."""
    assert FAMILY.matches(build())
    assert not FAMILY.matches(tiny_llava())
    assert not FAMILY.matches(tiny_qwen2_5_vl.build())
    assert not LlavaFamily().matches(build())
    several, full = build(), build()
    several.config.vision_feature_layer = [-2, -1]
    full.config.vision_feature_select_strategy = "full"
    assert not FAMILY.matches(several)
    assert not FAMILY.matches(full)


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


@pytest.mark.parametrize("tiles", [1, 2, 7])
def test_units_and_tokens_are_those_of_the_stock_model(tiles: int) -> None:
    """Every tile is one unit and makes as many tokens as the model has features for it."""
    model, pixels = build(), torch.randn(tiles, 3, SIDE, SIDE)
    (visual,) = FAMILY.visual_inputs(model, {"pixel_values": pixels})
    with torch.no_grad():
        features = model.get_image_features(pixels).pooler_output
    assert (visual.tower, visual.token_id, visual.units) == ("image", IMAGE_TOKEN, (1,) * tiles)
    assert visual.tokens == tuple(map(len, features)) == (TOKENS,) * tiles
    assert FAMILY.visual_inputs(model, {"pixel_values": None}) == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text"])
@pytest.mark.parametrize("form", FORMS)
def test_the_models_own_layer_is_its_own_projector_input_bit_for_bit(
    form: dict[str, Any], kind: str, dtype: torch.dtype
) -> None:
    """All weight on the default layer, with and without a final norm, and for an inner layer: the stock tensor."""
    model, inputs = build(dtype=dtype, **form), batch(kind)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    own = {FAMILY.facts(model).default_layer: 1.0}
    with torch.no_grad():
        stock = model(**inputs).logits
        with fusing(model, FAMILY, inputs, [own] * len(inputs["pixel_values"])) as swaps:
            fused = model(**inputs).logits
    ((theirs, ours),) = swaps
    assert torch.equal(theirs, ours)
    assert torch.equal(stock, fused)


def test_the_norm_is_read_where_the_stock_model_reads_it() -> None:
    """Layer L is normed for ``vision_feature_layer`` -1 alone, and only in a tower that has a norm."""
    for form, normed in zip(FORMS, (False, True, False, False), strict=True):
        model = build(**form)
        blocks, layers = FAMILY.towers(model)["image"], model.model.vision_tower.encoder.layer
        assert (len(blocks), list(blocks[:-1])) == (len(layers), list(layers[:-1]))
        assert (blocks[-1] is model.model.vision_tower.layernorm) == normed
    bare = build(mean_pooling=False, feature_layer=4)
    assert FAMILY.towers(bare)["image"][-1] is bare.model.vision_tower.encoder.layer[-1]


def test_every_tile_is_fused_with_its_own_weights() -> None:
    """Other weights for each of three tiles: hidden states mixed and shuffled by hand, then projected."""
    model = build(mean_pooling=False)
    inputs = {
        "input_ids": torch.tensor([[3, 4, *[IMAGE_TOKEN] * (3 * TOKENS), 5, 6, 7]]),
        "pixel_values": torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)),
    }
    shares = [{2: 0.5, 4: 0.5}, {0: 1.0}, {1: 0.25, 3: 0.75}]
    with torch.no_grad():
        with fusing(model, FAMILY, inputs, shares):
            found = model(**inputs).image_hidden_states
        output = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
        layers = [*output.hidden_states[:-1], output.last_hidden_state]
        mixed = [
            sum(weight * layers[layer][tile, 1:] for layer, weight in share.items())
            for tile, share in enumerate(shares)
        ]
        wanted = model.model.multi_modal_projector(torch.stack([shuffled_by_hand(cast(Tensor, m)) for m in mixed]))
        stock = model(**inputs).image_hidden_states
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found, stock, atol=1e-2)


def shuffled_by_hand(patches: Tensor) -> Tensor:
    """(P, D) -> (P / 4, 4 D): a token holds the four patches of a square, upper two first, tokens in raster order."""
    grid = patches.reshape(GRID, GRID, -1)
    return torch.stack(
        [
            torch.cat([grid[row + down, column + right] for down in (0, 1) for right in (0, 1)])
            for row in range(0, GRID, 2)
            for column in range(0, GRID, 2)
        ]
    )


@pytest.mark.parametrize("mean_pooling", [True, False])
def test_projected_vision_layers_are_the_stock_models_features(mean_pooling: bool) -> None:
    """The layer the stock model reads, through ``project``, is what ``get_image_features`` returns, bit for bit."""
    model, pixels = build(mean_pooling=mean_pooling), torch.randn(2, 3, SIDE, SIDE)
    layers = FAMILY.vision_layers(model, pixels)
    assert layers.shape == (5, 2, GRID * GRID, 32)
    with torch.no_grad():
        stock = model.get_image_features(pixels).pooler_output
        assert torch.equal(FAMILY.project(model, layers[FAMILY.facts(model).default_layer]), stock)


def test_cls_scores_lie_where_their_patches_do() -> None:
    """A token's score is the mean over its four patches, in the order of the model's own tokens."""
    model, scores = build(), torch.rand(2, 1 + GRID * GRID)
    found = FAMILY.cls_tokens(model, scores, {}, "image")
    wanted = [shuffled_by_hand(score[1:, None]).mean(-1) for score in scores]
    assert [len(score) for score in found] == [TOKENS] * 2
    assert torch.allclose(torch.stack(found), torch.stack(wanted))


@pytest.mark.parametrize("norms_queries", [False, True])
@pytest.mark.parametrize("feature_layer", [-1, -2])
def test_pivots_before_the_decoder_are_the_top_of_the_eager_towers_attention(
    norms_queries: bool, feature_layer: int
) -> None:
    """Saliency "cls" with pivots only: per row the tokens whose patches the tower's [CLS] row ranks highest."""
    model, inputs = build("eager", norms_queries=norms_queries, feature_layer=feature_layer), batch("several")
    layer = FAMILY.facts(model).default_layer
    keep = 7
    rows = tuple(RowPlan((layer,), (1.0,), 1.0) for _ in inputs["input_ids"])
    with torch.no_grad():
        with apply_plan(model, FAMILY, PrunePlan(((-1, keep),), rows, "cls")) as surgery:
            model.generate(**inputs, max_new_tokens=1)
        (trace,) = surgery.last
        maps = model.model.vision_tower(inputs["pixel_values"], output_attentions=True).attentions[layer - 1]
    cls = maps[:, :, 0].mean(1)[:, 1:]
    tokens = torch.stack([shuffled_by_hand(score[:, None]).mean(-1) for score in cls])
    for row, mine in enumerate((tokens[:3].flatten(), tokens[3])):  # one tile and two tiles, then one
        kept = [index for index, _ in trace.row(row)]
        assert kept == sorted(mine.topk(len(kept)).indices.tolist())
        assert len(kept) >= keep
