"""Video-LLaVA against the stock model: two towers, one projector, and inputs built without its processor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_llava import tiny_llava
from tiny_llava_next import fusing
from tiny_video_llava import FRAMES, GRID, IMAGE_TOKEN, PIXELS, SIDE, VIDEO_TOKEN, batch, build, full_inputs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, VideoLlavaConfig, VideoLlavaImageProcessor
from transformers.models.video_llava.processing_video_llava import VideoLlavaProcessor

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families.llava import LlavaFamily
from claspkit.runtime.families.video_llava import VideoLlavaFamily
from claspkit.runtime.inputs_video_llava import (
    build_inputs,
    build_video_inputs,
    expand_placeholders,
    image_token_count,
    video_token_count,
)

FAMILY = VideoLlavaFamily()
KINDS = ("single", "padded", "several", "mixed", "text", "video", "both")
NEW_TOKENS = 8
PATCHES = GRID * GRID
CONFIG = VideoLlavaConfig()  # that of the 7B: 224 pixels, 16 x 16 patches, 8 frames


def test_facts_are_those_of_the_config() -> None:
    """Budgets refer to 8 frames of 257 tokens in the 7B, which reads layer 23 of 24; the tiny one as it was built."""
    facts = FAMILY.facts(cast(Any, SimpleNamespace(config=CONFIG)))
    assert (facts.visual_tokens, facts.vision_depth, facts.default_layer, facts.scaling) == (8 * 257, 24, 23, "share")
    model = build(depth=5)
    facts = FAMILY.facts(model)
    assert (facts.visual_tokens, facts.vision_depth, facts.default_layer) == (FRAMES * (PATCHES + 1), 4, 3)
    assert (facts.decoder_depth, facts.decoder_width, facts.heads, facts.kv_heads) == (5, 32, 4, 2)
    assert len(FAMILY.decoder_layers(model)) == facts.decoder_depth
    assert [len(blocks) for blocks in FAMILY.towers(model).values()] == [facts.vision_depth] * 2
    assert FAMILY.placeholder_ids(model) == (IMAGE_TOKEN, VIDEO_TOKEN)


def test_it_knows_its_own_models_only() -> None:
    """LLaVA-1.5 and Video-LLaVA are not taken for each other, nor is one that reads several layers."""
    model = build()
    assert FAMILY.matches(model)
    assert not FAMILY.matches(tiny_llava())
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


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_units_and_tokens_are_those_of_the_stock_model(frames: int) -> None:
    """A picture is one unit of P tokens, a video one unit of P + 1 tokens per frame; pictures come first."""
    model = build()
    pixels, videos = torch.randn(3, 3, SIDE, SIDE), torch.randn(2, frames, 3, SIDE, SIDE)
    image, video = FAMILY.visual_inputs(model, {PIXELS: pixels, "pixel_values_videos": videos})
    with torch.no_grad():
        of_images = model.model.get_image_features(pixels).pooler_output
        of_videos = model.model.get_video_features(videos).pooler_output
    assert (image.tower, image.token_id, image.units) == ("image", IMAGE_TOKEN, (1,) * 3)
    assert (video.tower, video.token_id, video.units) == ("video", VIDEO_TOKEN, (frames,) * 2)
    assert image.tokens == tuple(len(picture) for picture in of_images)
    assert video.tokens == tuple(map(len, of_videos.flatten(0, 1).split(frames * (PATCHES + 1))))
    assert sum(video.tokens) == of_videos.shape[0] * of_videos.shape[1]


def test_pictures_go_by_either_name() -> None:
    """``pixel_values`` and ``pixel_values_images`` mean the same, also beside an explicit None; none is no error."""
    model, pixels = build(), torch.zeros(2, 3, SIDE, SIDE)
    found = FAMILY.visual_inputs(model, {"pixel_values": pixels})
    assert FAMILY.visual_inputs(model, {"pixel_values": None, "pixel_values_images": pixels}) == found
    assert found[0].tokens == (PATCHES, PATCHES)
    assert FAMILY.visual_inputs(model, {"pixel_values": None, "pixel_values_videos": None}) == ()


def test_the_full_strategy_keeps_cls_of_pictures_too() -> None:
    """``vision_feature_select_strategy`` "full": one more token per picture, as the stock model has it."""
    model = build()
    model.config.vision_feature_select_strategy = "full"
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        features = model.model.get_image_features(pixels).pooler_output
    (image,) = FAMILY.visual_inputs(model, {"pixel_values": pixels})
    assert image.tokens == tuple(map(len, features)) == (PATCHES + 1,) * 2
    scores = FAMILY.cls_tokens(model, torch.rand(2, PATCHES + 1), {"pixel_values": pixels}, "image")
    assert [(len(score), score[0].item()) for score in scores] == [(PATCHES + 1, 0.0)] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "text"])
def test_the_models_own_layer_is_its_own_projector_input_bit_for_bit(kind: str, dtype: torch.dtype) -> None:
    """All weight on the default layer: each projector call gets the very tensor that the stock model gives it."""
    model = build(dtype=dtype)
    inputs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch(kind).items()}
    own = {FAMILY.facts(model).default_layer: 1.0}
    visuals = FAMILY.visual_inputs(model, inputs)
    pictures = sum(len(visual.tokens) for visual in visuals)
    with torch.no_grad(), fusing(model, FAMILY, inputs, [own] * pictures) as swaps:
        model(**inputs)
    assert len(swaps) == len(visuals)
    assert all(torch.equal(stock, fused) for stock, fused in swaps)


def test_every_picture_and_video_is_fused_with_its_own_weights() -> None:
    """Other weights for each of two pictures and two videos: as from the towers' hidden states, by hand."""
    model, inputs = build(), batch("both")
    shares = [{1: 0.5, 3: 0.5}, {0: 1.0}, {2: 1 / 3, 4: 2 / 3}, {1: 0.25, 2: 0.75}]
    trunk = model.model
    with torch.no_grad():
        with fusing(model, FAMILY, inputs, shares):
            found = model(**inputs)
        stock = model(**inputs)
        pictures, videos = [], []
        for pixels, share in zip(inputs[PIXELS], shares[:2], strict=True):
            layers = trunk.image_tower(pixels[None], output_hidden_states=True).hidden_states
            fused = sum(weight * layers[layer][:, 1:] for layer, weight in share.items())
            pictures.append(trunk.multi_modal_projector(fused))
        for frames, share in zip(inputs["pixel_values_videos"], shares[2:], strict=True):
            layers = trunk.video_tower(frames, output_hidden_states=True).hidden_states
            videos.append(trunk.multi_modal_projector(sum(weight * layers[layer] for layer, weight in share.items())))
    assert torch.allclose(found.image_hidden_states, torch.cat(pictures), atol=1e-4)
    assert torch.allclose(found.video_hidden_states, torch.cat(videos), atol=1e-4)
    assert not torch.allclose(found.video_hidden_states, stock.video_hidden_states, atol=1e-2)


def test_cls_scores_lie_where_their_patches_do() -> None:
    """Scores of the eager towers' [CLS] rows: a picture's patches; 0 and the patches of each frame in turn."""
    model, inputs = build("eager"), batch("both")
    layer = FAMILY.facts(model).default_layer - 1
    with torch.no_grad():
        images = model.model.image_tower(inputs[PIXELS], output_attentions=True).attentions[layer]
        frames = inputs["pixel_values_videos"].flatten(0, 1)
        videos = model.model.video_tower(frames, output_attentions=True).attentions[layer]
    of_images, of_videos = images[:, :, 0].mean(1), videos[:, :, 0].mean(1)
    before = of_videos.clone()
    found = FAMILY.cls_tokens(model, of_images, inputs, "image")
    assert [score.tolist() for score in found] == of_images[:, 1:].tolist()
    lines = [[0.0, *line[1:]] for line in of_videos.tolist()]
    wanted = [[score for line in video for score in line] for video in (lines[:FRAMES], lines[FRAMES:])]
    assert [score.tolist() for score in FAMILY.cls_tokens(model, of_videos, inputs, "video")] == wanted
    assert torch.equal(of_videos, before)


@pytest.mark.parametrize("tower", ["image", "video"])
def test_cls_attention_is_that_of_the_layer_the_model_reads(tower: str) -> None:
    """Softmax over the module's own queries and keys gives that tower's eager attention of that layer."""
    model = build("eager")
    attention: Any = FAMILY.cls_attention(model, tower)
    seen: list[Tensor] = []
    handle = attention.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        encoder = getattr(model.model, f"{tower}_tower")
        maps = encoder(torch.randn(2, 3, SIDE, SIDE), output_attentions=True).attentions
        handle.remove()
        query, key = (
            side(seen[0]).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for side in (attention.q_proj, attention.k_proj)
        )
        rows = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
    assert torch.allclose(rows, maps[FAMILY.facts(model).default_layer - 1], atol=1e-5)


# Inputs without the processor


def tokenizer(template: str | None = None) -> Any:
    """A byte-level tokenizer with the tiny model's special tokens."""
    vocabulary = {"<pad>": 0, "<s>": 1, "<video>": VIDEO_TOKEN, "<image>": IMAGE_TOKEN}
    vocabulary |= {letter: 200 + place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<s>", additional_special_tokens=["<image>", "<video>"]
    )
    made.chat_template = template
    return made


def processor(side: int) -> VideoLlavaImageProcessor:
    """The model's image processor for square pictures of ``side`` pixels."""
    return VideoLlavaImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


@pytest.mark.parametrize(
    ("height", "width", "frames", "image", "video"),
    [
        (224, 224, 8, 256, 2056),  # 16 * 16; 8 * (16 * 16 + 1)
        (336, 336, 1, 576, 577),  # 24 * 24; 1 * (24 * 24 + 1)
        (230, 120, 4, 128, 516),  # rests of a patch do not count: 16 * 8; 4 * (16 * 8 + 1)
    ],
)
def test_counts_are_those_of_the_processor(height: int, width: int, frames: int, image: int, video: int) -> None:
    """The layout of the stock processor from recorded shapes, by hand and by its own two functions.

    Per picture it counts whole patches of 14 pixels, adds 1 for [CLS] and takes 1 off again for the strategy
    "default"; per frame it adds the 1 and takes nothing off.
    """
    assert image_token_count(CONFIG, height, width) == image
    assert video_token_count(CONFIG, frames, height, width) == video
    settings: Any = SimpleNamespace(
        patch_size=14,
        num_additional_image_tokens=1,
        vision_feature_select_strategy="default",
        image_token="<image>",
        video_token="<video>",
    )
    pixels = {PIXELS: torch.zeros(1, 3, height, width), "pixel_values_videos": torch.zeros(1, frames, 3, height, width)}
    assert VideoLlavaProcessor.replace_image_token(settings, pixels, 0) == "<image>" * image
    assert VideoLlavaProcessor.replace_video_token(settings, pixels, 0) == "<video>" * video


def test_placeholders_are_expanded_in_order() -> None:
    """The k-th placeholder k-th count times; a text with another number of them is refused."""
    assert expand_placeholders("a<v>b<v>", "<v>", [2, 3]) == "a<v><v>b<v><v><v>"
    assert expand_placeholders("a", "<v>", []) == "a"
    with pytest.raises(UsageError, match="2 <v> placeholders for 1"):
        expand_placeholders("a<v>b<v>", "<v>", [2])


def test_built_inputs_run_and_hold_the_pictures_and_the_words() -> None:
    """One picture per prompt, left-padded, in the model's chat format; the stock model answers them."""
    model, words = build(), tokenizer()
    pictures = [Image.new("RGB", (40, 30), "red"), Image.new("RGBA", (20, 60), "blue")]
    inputs = build_inputs(processor(SIDE), words, pictures, ["What <image>is it?", "Why<video>?"], model.config)
    ids, mask, pixels = inputs["input_ids"], inputs["attention_mask"], inputs[PIXELS]
    assert pixels.shape == (2, 3, SIDE, SIDE)
    assert (ids == IMAGE_TOKEN).sum(1).tolist() == [PATCHES] * 2
    assert not (ids == VIDEO_TOKEN).any()
    texts = [words.decode(row[real.bool()]) for row, real in zip(ids, mask, strict=True)]
    run = "<image>" * PATCHES
    assert texts == [f"<s>USER: {run}\n{text} ASSISTANT:" for text in ("What  is it?", "Why ?")]
    assert mask[1].tolist() == sorted(mask[1].tolist())
    (visual,) = FAMILY.visual_inputs(model, inputs)
    assert visual.tokens == (PATCHES, PATCHES)
    ids[ids > IMAGE_TOKEN] = 10  # the tiny model has no letters
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == ids.shape[1] + 2


@pytest.mark.parametrize("size", [(9, 3), (3, 3), (9, 1), (3, 9), (7, 4)])
def test_a_low_picture_is_read_with_its_channels_last(size: tuple[int, int]) -> None:
    """Three pixels of height are no three channels: pictures and frames are what they are when that is said."""
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    told = processor(SIDE)(values, input_data_format="channels_last", return_tensors="pt")
    (wanted,) = told.values()
    picture, words, config = Image.fromarray(values), tokenizer(), build().config
    assert torch.equal(build_inputs(processor(SIDE), words, [picture], ["What?"], config)[PIXELS], wanted)
    moving = build_video_inputs(processor(SIDE), words, [[picture] * 2], ["What?"], config)
    assert torch.equal(moving["pixel_values_videos"][0], wanted.expand(2, -1, -1, -1))


def test_built_video_inputs_run_and_hold_the_frames_in_order() -> None:
    """One video per prompt: frame t of video i is what the image processor makes of that picture."""
    model, words = build(), tokenizer()
    videos = [[Image.new("RGB", (40, 30), (20 * i, 60 * t, 90)) for t in range(FRAMES)] for i in range(2)]
    inputs = build_video_inputs(processor(SIDE), words, videos, ["What?", "Why is it so?"], model.config)
    pixels = inputs["pixel_values_videos"]
    assert pixels.shape == (2, FRAMES, 3, SIDE, SIDE)
    alone = build_inputs(processor(SIDE), words, [videos[1][2]], ["x"], model.config)[PIXELS]
    assert torch.equal(pixels[1, 2], alone[0])
    assert (inputs["input_ids"] == VIDEO_TOKEN).sum(1).tolist() == [FRAMES * (PATCHES + 1)] * 2
    inputs["input_ids"][inputs["input_ids"] > IMAGE_TOKEN] = 10
    assert len(model.generate(**inputs, max_new_tokens=2)) == 2


def test_a_template_of_the_tokenizer_is_used() -> None:
    """The chat template decides where the placeholder and the text go."""
    template = (
        "{% for turn in messages %}{% for part in turn['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% else %}[<{{ part['type'] }}>]{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}!{% endif %}"
    )
    words, config, picture = tokenizer(template), build().config, Image.new("RGB", (9, 9))
    for builder, pictures, run in (
        (build_inputs, [picture], "<image>" * PATCHES),
        (build_video_inputs, [[picture]], "<video>" * (PATCHES + 1)),
    ):
        ids = cast(Any, builder)(processor(SIDE), words, pictures, ["So?"], config)["input_ids"]
        assert words.decode(ids[0]) == f"<s>[{run}]So?!"


def test_batches_that_do_not_fit_are_refused() -> None:
    """A picture too few, no prompt at all, and videos of different or no length."""
    config, words, picture = build().config, tokenizer(), Image.new("RGB", (9, 9))
    with pytest.raises(UsageError, match="got 1 pictures and 2 prompts"):
        build_inputs(processor(SIDE), words, [picture], ["a", "b"], config)
    with pytest.raises(UsageError, match="got 0 videos and 0 prompts"):
        build_video_inputs(processor(SIDE), words, [], [], config)
    with pytest.raises(UsageError, match=r"equally many frames, at least one, got \[1, 2\]"):
        build_video_inputs(processor(SIDE), words, [[picture], [picture] * 2], ["a", "b"], config)
    with pytest.raises(UsageError, match=r"got \[0\]"):
        build_video_inputs(processor(SIDE), words, [[]], ["a"], config)
