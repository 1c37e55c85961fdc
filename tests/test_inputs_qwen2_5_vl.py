"""Qwen2.5-VL's inputs built without its processor: the layout is the processor's, and the stock model takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_qwen2_5_vl import IMAGE_TOKEN, VIDEO_TOKEN, VISION_END, VISION_START, build
from tiny_tokenizer import FIRST_LETTER, tiny_tokenizer
from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families.qwen2_5_vl import Qwen2_5VLFamily
from claspkit.runtime.inputs_qwen2_5_vl import build_inputs, token_counts, token_types

PAD, START, END, VIDEO = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"
SPECIAL = {PAD: IMAGE_TOKEN, VIDEO: VIDEO_TOKEN, START: VISION_START, END: VISION_END, "<|im_end|>": 3}
TEMPLATE = (
    "{% for turn in messages %}U:{% for part in turn['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE) -> Any:
    """A tokenizer with the model's special tokens, at the tiny model's ids."""
    return tiny_tokenizer(SPECIAL, template)


@pytest.mark.parametrize(
    ("width", "height", "grid", "tokens"),
    [
        (100, 60, [1, 4, 8], 8),  # 60 / 28 = 2.1 and 100 / 28 = 3.6 round to 2 and 4 cells of 2 x 2 patches
        (56, 280, [1, 20, 4], 20),  # whole cells already: 10 x 2
        (20, 20, [1, 4, 4], 4),  # one cell is below the least of 56 x 56 pixels: enlarged to 2 x 2 cells
        (1008, 1008, [1, 70, 70], 1225),  # 36 x 36 cells are beyond 1280: shrunk by 1.0062 and cut to 35 x 35
        (1400, 400, [1, 28, 100], 700),  # 400 / 28 = 14.3 and 1400 / 28 = 50: 14 x 50 cells
    ],
)
def test_counts_are_those_of_the_processor(width: int, height: int, grid: list[int], tokens: int) -> None:
    """Recorded layouts of the stock processor at its standard sizes, and what its own function writes for them.

    The image processor rounds both sides to whole cells of 28 pixels, within 56^2 and 28^2 * 1280 pixels; a cell is
    2 x 2 patches and becomes one token, so the processor writes a quarter of the patches as placeholders.
    """
    processor = Qwen2VLImageProcessorPil()
    made = processor(images=[Image.new("RGB", (width, height))], return_tensors="pt")
    assert made["image_grid_thw"].tolist() == [grid]
    assert token_counts(made["image_grid_thw"], processor.merge_size) == [tokens]
    stock: Any = SimpleNamespace(image_processor=processor, image_token=PAD)
    assert Qwen2_5_VLProcessor.replace_image_token(stock, dict(made), 0) == PAD * tokens


def test_token_types_are_those_of_the_processor() -> None:
    """0 for text and what encloses a picture, 1 for its placeholders, 2 for a video's."""
    ids = torch.tensor([[0, 0, 20, VISION_START, IMAGE_TOKEN, VISION_END], [VIDEO_TOKEN, VIDEO_TOKEN, 20, 21, 22, 23]])
    types = token_types(ids, IMAGE_TOKEN, VIDEO_TOKEN)
    assert types.tolist() == [[0, 0, 0, 0, 1, 0], [2, 2, 0, 0, 0, 0]]
    stock: Any = SimpleNamespace(image_token_ids=[IMAGE_TOKEN], video_token_ids=[VIDEO_TOKEN], audio_token_ids=[])
    assert Qwen2_5_VLProcessor.create_mm_token_type_ids(stock, ids.tolist()) == types.tolist()


def test_built_inputs_run_and_hold_the_pictures_and_the_words() -> None:
    """One picture per prompt, left-padded, in the chat format; the stock model answers them."""
    model, words = build(), tokenizer()
    pictures = [Image.new("RGB", (100, 60), "red"), Image.new("RGBA", (20, 20), "blue")]
    prompts = [f" What {PAD}is {END}it? ", f"Why{VIDEO}?"]
    inputs = build_inputs(Qwen2VLImageProcessorPil(), words, pictures, prompts, model.config)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    texts = [words.decode(row[real.bool()]) for row, real in zip(ids, mask, strict=True)]
    assert texts == [
        f"U:{START}{PAD * count}{END}{text}<|im_end|>A:" for count, text in ((8, "What  is  it?"), (4, "Why ?"))
    ]
    assert mask[1].tolist() == sorted(mask[1].tolist())
    assert not mask[1].all()
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 8], [1, 4, 4]]
    assert inputs["pixel_values"].shape == (32 + 16, 3 * 2 * 14 * 14)
    assert torch.equal(inputs["mm_token_type_ids"], (ids == IMAGE_TOKEN).long())
    (visual,) = Qwen2_5VLFamily().visual_inputs(model, inputs)
    assert (visual.tokens, visual.units) == ((8, 4), (32, 16))
    ids[ids >= FIRST_LETTER] = 10  # the tiny model has no letters
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == ids.shape[1] + 2


def test_batches_that_do_not_fit_are_refused() -> None:
    """A picture too few, no prompt at all, a template without a picture, and tokenizers that lack what is needed."""
    config, processor, picture = build().config, Qwen2VLImageProcessorPil(), Image.new("RGB", (60, 60))
    with pytest.raises(UsageError, match="got 1 pictures, 2 prompts"):
        build_inputs(processor, tokenizer(), [picture], ["a", "b"], config)
    with pytest.raises(UsageError, match="got 0 pictures, 0 prompts"):
        build_inputs(processor, tokenizer(), [], [], config)
    with pytest.raises(UsageError, match=r"0 <\|image_pad\|> placeholders for 1 pictures"):
        build_inputs(processor, tokenizer("nothing"), [picture], ["a"], config)
    with pytest.raises(UsageError, match="no chat template"):
        build_inputs(processor, tokenizer(None), [picture], ["a"], config)
    unpadded = tokenizer()
    unpadded.pad_token = None
    with pytest.raises(UsageError, match="no pad token"):
        build_inputs(processor, unpadded, [picture], ["a"], config)
