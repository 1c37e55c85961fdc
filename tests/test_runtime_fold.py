"""A folded model against the fusion written out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_llava
import tiny_llava_next
import tiny_video_llava
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from claspkit.profiles.errors import UsageError
from claspkit.profiles.profile import softmax_weights
from claspkit.runtime.families import Family
from claspkit.runtime.families.llava import LlavaFamily
from claspkit.runtime.families.llava_next import LlavaNextFamily
from claspkit.runtime.families.video_llava import VideoLlavaFamily
from claspkit.runtime.fold import fold_class

DEPTH = 4
FUSIONS = [((1, 3), (0.25, 0.75)), ((0, 2, 4), (0.5, 0.2, 0.3)), ((0, 1, 2, 3, 4), (0.2,) * 5)]
MODELS: dict[str, tuple[Any, Family, str]] = {
    "llava": (tiny_llava.tiny_llava, LlavaFamily(), ""),
    "next": (tiny_llava_next.build, LlavaNextFamily(), "several"),
    "video": (tiny_video_llava.build, VideoLlavaFamily(), "both"),
}


def make(kind: str, dtype: torch.dtype = torch.float32) -> tuple[Any, dict[str, Tensor], Family]:
    """A tiny model, a batch of pictures for it, and its family."""
    build, family, content = MODELS[kind]
    tiny = {"next": tiny_llava_next, "video": tiny_video_llava}.get(kind)
    batch = tiny.batch(content) if tiny else tiny_llava.tiny_batch([3, 8])
    made = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
    return build(dtype=dtype), made, family


def fused_by_hand(model: Any, batch: dict[str, Tensor], layers: Any, weights: Any) -> Tensor:
    """Logits with every visual token from the weighted mean of whole vision layers, without our code."""
    config, trunk = model.config, model.model
    embeddings = model.get_input_embeddings()(batch["input_ids"])

    def mean(tower: Any, pixels: Tensor) -> Tensor:
        states = tower(pixels, output_hidden_states=True).hidden_states
        return torch.stack([share * states[layer] for layer, share in zip(layers, weights, strict=True)]).sum(0)

    def place(token: int, features: Tensor) -> None:
        embeddings[batch["input_ids"] == token] = features.reshape(-1, features.shape[-1])

    crop = 1 if config.vision_feature_select_strategy == "default" else 0
    if config.model_type == "llava":
        patches = mean(trunk.vision_tower, batch["pixel_values"])[:, crop:]
        place(config.image_token_id, trunk.multi_modal_projector(patches))
    elif config.model_type == "llava_next":
        sizes = [tuple(size) for size in batch["image_sizes"].tolist()]
        counts = [tiny_llava_next.PICTURES[size][0] for size in sizes]
        tiles = torch.cat([pixels[:count] for pixels, count in zip(batch["pixel_values"], counts, strict=True)])
        projected = trunk.multi_modal_projector(mean(trunk.vision_tower, tiles)[:, crop:])
        packed, _ = trunk.pack_image_features(
            projected.split(counts), batch["image_sizes"], "default", image_newline=trunk.image_newline
        )
        place(config.image_token_id, torch.cat(list(packed)))
    else:
        pictures = mean(trunk.image_tower, batch[tiny_video_llava.PIXELS])[:, crop:]
        place(config.image_token_id, trunk.multi_modal_projector(pictures))
        frames = mean(trunk.video_tower, batch["pixel_values_videos"].flatten(0, 1))
        place(config.video_token_id, trunk.multi_modal_projector(frames))
    logits: Tensor = model(inputs_embeds=embeddings, attention_mask=batch["attention_mask"]).logits
    return logits


def apart(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two sets of logits, as a share of the largest logit."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("fusion", FUSIONS, ids=str)
@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_folded_is_fused(kind: str, fusion: tuple[tuple[int, ...], tuple[float, ...]]) -> None:
    """Logits of the folded model and of the fusion by hand agree to 1e-5, and differ from the stock model's."""
    model, batch, family = make(kind)
    expected, stock = fused_by_hand(model, batch, *fusion), model(**batch).logits
    folded: Any = fold_class(model, family, *fusion)
    assert folded.config.vision_feature_layer == list(fusion[0])
    assert apart(folded(**batch).logits, expected) < 1e-5
    assert apart(stock, expected) > 1e-2


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_in_double_precision_only_rounding_is_left(kind: str) -> None:
    """The equation is exact: in float64 nothing but the order of sums differs."""
    model, batch, family = make(kind, torch.float64)
    shares = softmax_weights([0.3, 0.9, 0.1], 2.0)
    folded: Any = fold_class(model, family, (0, 3, 4), shares)
    assert apart(folded(**batch).logits, fused_by_hand(model, batch, (0, 3, 4), shares)) < 1e-12


@torch.no_grad()
def test_the_class_token_stays_where_it_is_kept() -> None:
    """A model that projects [CLS] too ("full") still does after folding."""
    model, batch, family = make("llava")
    model.config.vision_feature_select_strategy = "full"
    ids = torch.cat([batch["input_ids"], torch.full((2, 1), tiny_llava.IMAGE_TOKEN)], dim=1)
    batch |= {"input_ids": ids, "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 1), value=1)}
    expected = fused_by_hand(model, batch, (1, 4), (0.5, 0.5))
    folded: Any = fold_class(model, family, (1, 4), (0.5, 0.5))
    assert apart(folded(**batch).logits, expected) < 1e-5


@pytest.mark.parametrize("layer", range(DEPTH + 1))
@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_one_layer_changes_the_config_alone(kind: str, layer: int) -> None:
    """Also layer 0: an integer, every weight the very same tensor, and the logits of that layer bit for bit."""
    model, batch, family = make(kind)
    expected = fused_by_hand(model, batch, (layer,), (1.0,))
    folded: Any = fold_class(model, family, (layer,), (1.0,))
    assert isinstance(folded.config.vision_feature_layer, int)
    assert folded.config.vision_feature_layer % (DEPTH + 1) == layer
    assert all(mine is theirs for mine, theirs in zip(folded.parameters(), model.parameters(), strict=True))
    assert torch.equal(folded(**batch).logits, expected)


def test_the_models_own_layer_keeps_its_sign() -> None:
    """Folding the layer that the stock model reads leaves its config as it was."""
    model, _, family = make("llava")
    folded: Any = fold_class(model, family, (3,), (1.0,))
    assert folded.config.to_dict() == model.config.to_dict()


def test_a_layer_without_share_is_left_out() -> None:
    """Softmax weights of far-off scores are exactly 0; their layers would only cost."""
    model, _, family = make("llava")
    folded: Any = fold_class(model, family, (1, 2, 3), softmax_weights([0.0, 1.0, 1.0], 1e4))
    assert folded.config.vision_feature_layer == [2, 3]
    assert folded.model.multi_modal_projector.linear_1.in_features == 2 * 32
    alone: Any = fold_class(model, family, (1, 2), (0.0, 1.0))
    assert alone.config.vision_feature_layer == 2


@torch.no_grad()
def test_the_given_model_is_untouched_and_shared() -> None:
    """Same tensors, config, hooks and logits as before; the copy has one new tensor and shares all others."""
    model, batch, family = make("llava")
    names, config, before = list(model.state_dict()), model.config.to_dict(), model(**batch).logits
    tensors = [tensor.data_ptr() for tensor in model.state_dict().values()]
    folded: Any = fold_class(model, family, (1, 4), (0.5, 0.5))
    folded.register_forward_hook(lambda *_: None)
    folded.model.register_forward_pre_hook(lambda *_: None)
    folded.generation_config.max_new_tokens = 3
    assert (list(model.state_dict()), model.config.to_dict()) == (names, config)
    assert [tensor.data_ptr() for tensor in model.state_dict().values()] == tensors
    assert torch.equal(model(**batch).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in (model, model.model))
    assert model.generation_config.max_new_tokens != 3
    new = [name for name, value in folded.state_dict().items() if value.data_ptr() not in tensors]
    assert new == ["model.multi_modal_projector.linear_1.weight"]
    assert list(folded.state_dict()) == names


@torch.no_grad()
def test_both_models_report_their_hidden_states() -> None:
    """Sharing a decoder doubles nothing that transformers records from it."""
    model, batch, family = make("llava")
    folded: Any = fold_class(model, family, (1, 4), (0.5, 0.5))
    for one in (folded, model, folded):
        seen = one(**batch, output_hidden_states=True)
        assert len(seen.hidden_states) == 6 + 1
        assert seen.image_hidden_states.shape == (2 * tiny_llava.GRID**2, 32)


def test_generates_what_the_fused_model_generates() -> None:
    """Greedy answers: the same tokens as one forward after the other of the fusion by hand."""
    model, batch, family = make("llava")
    folded: Any = fold_class(model, family, (1, 4), (0.4, 0.6))
    answer = folded.generate(**batch, max_new_tokens=4, do_sample=False)[:, batch["input_ids"].shape[1] :]
    for _ in range(4):
        with torch.no_grad():
            following = fused_by_hand(model, batch, (1, 4), (0.4, 0.6))[:, -1:].argmax(-1)
        batch["input_ids"] = torch.cat([batch["input_ids"], following], dim=1)
        batch["attention_mask"] = torch.nn.functional.pad(batch["attention_mask"], (0, 1), value=1)
    assert torch.equal(answer, batch["input_ids"][:, -4:])


def test_hooks_stay_behind() -> None:
    """Folding inside a block that hooks the model gives a model without those hooks."""
    model, _, family = make("llava")
    for module in (model, model.model, model.model.multi_modal_projector):
        module.register_forward_pre_hook(lambda *_: pytest.fail("a hook came along"))
    folded: Any = fold_class(model, family, (1, 4), (0.5, 0.5))
    folded(**tiny_llava.tiny_batch([3]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_weights_are_rounded_once(dtype: torch.dtype) -> None:
    """Every folded weight is the exact product, rounded once to the model's dtype."""
    model, _, family = make("llava", dtype)
    frozen: Any = fold_class(make("llava")[0].requires_grad_(False), family, (1, 4), (0.5, 0.5))
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    first = model.model.multi_modal_projector.linear_1
    shares = (0.3, 0.7)
    folded: Any = fold_class(model, family, (1, 4), shares)
    wide = folded.model.multi_modal_projector.linear_1.weight
    assert wide.dtype == dtype
    assert wide.requires_grad
    for part, share in zip(wide.chunk(2, dim=1), shares, strict=True):
        assert torch.equal(part, (share * first.weight.double()).to(dtype))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, DEPTH), min_size=1, max_size=DEPTH + 1, unique=True).map(sorted),
    st.lists(st.floats(-3, 3), min_size=DEPTH + 1, max_size=DEPTH + 1),
    st.booleans(),
)
def test_any_fusion_folds(layers: list[int], scores: list[float], bias: bool) -> None:
    """Any layers and softmax weights, with and without a bias: the projector of the sum, in float64."""
    torch.manual_seed(len(layers))
    projector = nn.Module()
    projector.linear_1, projector.act = nn.Linear(6, 5, bias=bias), nn.GELU()
    projector.linear_2 = nn.Linear(5, 3)
    model: Any = nn.Module()
    model.inner = projector.double()
    model.config = SimpleNamespace(vision_feature_layer=-2)
    family: Any = SimpleNamespace(
        projector=lambda model: model.inner, facts=lambda _: SimpleNamespace(vision_depth=DEPTH)
    )
    shares = softmax_weights(scores[: len(layers)], 2.0)
    states = torch.randn(len(layers), 2, 7, 6, dtype=torch.float64)
    mean = (torch.tensor(shares, dtype=torch.float64)[:, None, None, None] * states).sum(0)
    folded: Any = fold_class(model, family, layers, shares)
    assert torch.allclose(folded.inner.linear_1(torch.cat(list(states), -1)), projector.linear_1(mean), atol=1e-13)


@pytest.mark.parametrize(
    ("layers", "weights", "words"),
    [
        ((), (), "at least one"),
        ((1, 2), (1.0,), "one share per layer"),
        ((2, 1), (0.5, 0.5), "ascend"),
        ((1, 1), (0.5, 0.5), "ascend"),
        ((-2,), (1.0,), "within 0"),
        ((1, 5), (0.5, 0.5), r"and 4 \(the last block\)"),
        ((1, 2), (0.5, 0.6), "sum is 1.1"),
        ((1, 2), (1.5, -0.5), "non-negative"),
        ((1, 2), (float("nan"), 1.0), "sum is nan"),
        ((1, 2), (1.0, float("nan")), "sum is nan"),
        ((1, 2), (float("inf"), 1.0), "sum is inf"),
    ],
)
def test_refuses_impossible_fusions(layers: tuple[int, ...], weights: tuple[float, ...], words: str) -> None:
    """Layers that are not there and shares that are none; the text says what was got and what is allowed."""
    model, _, family = make("llava")
    with pytest.raises(UsageError, match=words):
        fold_class(model, family, layers, weights)


def test_refuses_a_projector_that_does_not_start_linear() -> None:
    """InternVL's and Qwen's start with a norm, VipLLaVA's too though the names are LLaVA's; the text says why."""
    from transformers import InternVLConfig, VipLlavaConfig
    from transformers.models.internvl.modeling_internvl import InternVLMultiModalProjector
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLPatchMerger
    from transformers.models.vipllava.modeling_vipllava import VipLlavaMultiModalProjector

    model, _, family = make("llava")
    with torch.device("meta"):
        projectors = [
            InternVLMultiModalProjector(InternVLConfig()),
            Qwen2_5_VLPatchMerger(32, 32),
            VipLlavaMultiModalProjector(VipLlavaConfig()),
        ]
    for projector in projectors:
        model.model.multi_modal_projector = projector
        with pytest.raises(UsageError, match=r"a step before the linear layer .a norm"):
            fold_class(model, family, (1, 2), (0.5, 0.5))


def test_refuses_what_it_cannot_copy_or_widen() -> None:
    """A folded model, a first layer that is not a plain linear one, a replaced forward."""
    model, _, family = make("llava")
    folded = fold_class(model, family, (1, 2), (0.5, 0.5))
    with pytest.raises(UsageError, match=r"several vision layers already .*\[1, 2\]"):
        fold_class(folded, family, (1, 2), (0.5, 0.5))

    class Adapted(nn.Linear):
        """A stand-in for quantized and adapter layers, which are subclasses."""

    model.model.multi_modal_projector.linear_1 = Adapted(32, 32)
    with pytest.raises(UsageError, match=r"of type Adapted.*merge adapters"):
        fold_class(model, family, (1, 2), (0.5, 0.5))
    model, _, family = make("llava")
    model.model.forward = model.model.forward
    with pytest.raises(UsageError, match="forward of LlavaModel was replaced"):
        fold_class(model, family, (1, 2), (0.5, 0.5))


def test_looks_up_the_family() -> None:
    """None finds it, and an unsupported model is refused there."""
    folded: Any = fold_class(make("llava")[0], None, (1, 2), (0.5, 0.5))
    assert folded.config.vision_feature_layer == [1, 2]
    with pytest.raises(UsageError, match="not supported"):
        fold_class(nn.Linear(2, 2), None, (1, 2), (0.5, 0.5))
