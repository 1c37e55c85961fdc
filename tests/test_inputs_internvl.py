"""InternVL's inputs built without its processor: the layout is the processor's, and the stock model takes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from PIL import Image
from tiny_internvl import END, IMAGE_TOKEN, SIDE, START, TOKENS, build
from tiny_tokenizer import FIRST_LETTER, tiny_tokenizer
from transformers import InternVLConfig
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.processing_internvl import InternVLProcessor

from claspkit.profiles.errors import UsageError
from claspkit.runtime.families.internvl import InternVLFamily
from claspkit.runtime.inputs_internvl import build_inputs, picture_run

CONTEXT = "<IMG_CONTEXT>"
SPECIAL = {CONTEXT: IMAGE_TOKEN, "<img>": START, "</img>": END, "<video>": 7, "<|im_end|>": 3}
NAMED = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": CONTEXT,
    "video_token": "<video>",
}
TEMPLATE = (
    "{% for turn in messages %}U:{% for part in turn['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}A:{% endif %}"
)


def tokenizer(template: str | None = TEMPLATE) -> Any:
    """A tokenizer with the model's special tokens, at the tiny model's ids."""
    return tiny_tokenizer(SPECIAL, template, **NAMED)


def processor(side: int) -> GotOcr2ImageProcessorPil:
    """The model's image processor for tiles of ``side`` pixels."""
    return GotOcr2ImageProcessorPil(size={"height": side, "width": side})


@pytest.mark.parametrize(
    ("width", "height", "tiles"),
    [
        (448, 448, 1),  # 1 : 1, and no more pixels than one tile has
        (200, 200, 1),  # 1 : 1; more tiles are taken only where the picture fills more than half of them
        (1000, 1000, 10),  # 1 : 1 fits 1 x 1, 2 x 2 and 3 x 3; 10^6 pixels fill more than half of 9 tiles, + overview
        (1000, 400, 11),  # 2.5 : 1 is 5 x 2, + overview
        (300, 900, 4),  # 1 : 3 is 1 x 3, + overview
        (100, 2000, 13),  # 1 : 20; 1 x 12 is nearest of what 12 tiles allow, + overview
    ],
)
def test_runs_are_those_of_the_processor(width: int, height: int, tiles: int) -> None:
    """Recorded layouts of the stock processor for tiles of 448 pixels, and what its own function writes for them.

    A picture is cut into the arrangement of at most 12 tiles that is nearest its shape, and where that is more than
    one tile, an overview is added; every tile has 256 placeholders, all of them between one start and one end.
    """
    config, words = InternVLConfig(image_token_id=IMAGE_TOKEN), tokenizer()
    cut = cast(Any, processor(448))  # the call takes options that its annotation does not name
    made = cut(images=[Image.new("RGB", (width, height))], crop_to_patches=True, return_tensors="pt")
    assert [int(count) for count in made["num_patches"]] == [tiles]
    run = picture_run(words, config, tiles)
    assert run == "<img>" + CONTEXT * 256 * tiles + "</img>"
    stock: Any = SimpleNamespace(**NAMED, image_token=CONTEXT, image_seq_length=256)
    assert InternVLProcessor.replace_image_token(stock, {"num_patches": [tiles]}, 0) == run


def test_a_tokenizer_that_names_nothing_has_the_usual_tokens() -> None:
    """``<img>`` and ``</img>`` where start and end are no attributes of the tokenizer."""
    config = InternVLConfig(image_token_id=IMAGE_TOKEN, image_seq_length=2)
    assert picture_run(tiny_tokenizer(SPECIAL, None), config, 1) == f"<img>{CONTEXT * 2}</img>"


def test_built_inputs_run_and_hold_the_tiles_and_the_words() -> None:
    """One picture per prompt, left-padded, tiles in the order of the prompts; the stock model answers."""
    model, words = build(), tokenizer()
    pictures = [Image.new("RGB", (4 * SIDE, 2 * SIDE), "red"), Image.new("RGBA", (SIDE, SIDE), "blue")]
    prompts = [f" What {CONTEXT}is <img>it? ", "Why<video></img>?"]
    inputs = build_inputs(processor(SIDE), words, pictures, prompts, model.config)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    texts = [words.decode(row[real.bool()]) for row, real in zip(ids, mask, strict=True)]
    assert texts == [  # 2 : 1 at 8 tiles' size: 4 x 2 and an overview
        f"U:<img>{CONTEXT * (TOKENS * tiles)}</img>\n{text}<|im_end|>A:"
        for tiles, text in ((9, "What  is  it?"), (1, "Why  ?"))
    ]
    assert mask[1].tolist() == sorted(mask[1].tolist())
    assert inputs["pixel_values"].shape == (10, 3, SIDE, SIDE)
    alone = build_inputs(processor(SIDE), words, pictures[1:], ["x"], model.config)["pixel_values"]
    assert torch.equal(inputs["pixel_values"][9:], alone)
    (visual,) = InternVLFamily().visual_inputs(model, inputs)
    assert sum(visual.tokens) == int((ids == IMAGE_TOKEN).sum()) == 10 * TOKENS
    ids[ids >= FIRST_LETTER] = 10  # the tiny model has no letters
    assert model.generate(**inputs, max_new_tokens=2).shape[1] == ids.shape[1] + 2


def test_batches_that_do_not_fit_are_refused() -> None:
    """A picture too few, a template without a picture, and a tokenizer without a template."""
    config, picture = build().config, Image.new("RGB", (SIDE, SIDE))
    with pytest.raises(UsageError, match="got 1 pictures, 2 prompts"):
        build_inputs(processor(SIDE), tokenizer(), [picture], ["a", "b"], config)
    with pytest.raises(UsageError, match="0 <IMG_CONTEXT> placeholders for 1 pictures"):
        build_inputs(processor(SIDE), tokenizer("nothing"), [picture], ["a"], config)
    with pytest.raises(UsageError, match="no chat template"):
        build_inputs(processor(SIDE), tokenizer(None), [picture], ["a"], config)
