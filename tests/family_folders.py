"""Tiny models as users keep theirs: folders with weights, image processor and tokenizer, made to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_internvl
import tiny_llava_next
import tiny_qwen2_5_vl
import tiny_video_llava
import torch
import transformers
from tiny_tokenizer import tiny_tokenizer
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from claspkit.runtime.families import find_family
from claspkit.runtime.models import LoadedModel, ModelSource, describe, load_model

TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% for part in turn.content %}{% if part.type == 'image' %}<img-here>{% elif part.type == 'video' %}<vid-here>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MODELS: dict[str, Any] = {
    "llava-next": tiny_llava_next,
    "qwen2.5-vl": tiny_qwen2_5_vl,
    "internvl": tiny_internvl,
    "video-llava": tiny_video_llava,
}
"""The families whose pictures differ in size."""


def widened(name: str) -> Any:
    """The family's tiny model with a vocabulary that has letters."""
    model = MODELS[name].build()
    with torch.no_grad():
        model.resize_token_embeddings(600)
    return model


def save_folder(name: str, folder: Path) -> None:
    """A tiny model of the family as a transformers folder: weights, image processor, tokenizer with its template."""
    model = widened(name)
    config = model.config
    special = {"<image>": config.image_token_id, "<|im_start|>": 95, "<|im_end|>": 94}
    run = "<image>"
    if name == "llava-next":
        for part in (model, llava_next_processor()):
            part.save_pretrained(folder)
        return
    if name == "qwen2.5-vl":
        special |= {"<video>": config.video_token_id, "<|vision_start|>": 9, "<|vision_end|>": 8}
        run = "<|vision_start|><image><|vision_end|>"
        processor: Any = transformers.Qwen2VLImageProcessorPil(
            size={"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
        )
    elif name == "internvl":
        side = config.vision_config.image_size[0]
        special |= {"<img>": 93, "</img>": 92}
        processor = transformers.GotOcr2ImageProcessorPil(size={"height": side, "width": side}, max_patches=4)
    else:
        special |= {"<video>": config.video_token_id}
        side = config.vision_config.image_size
        processor = transformers.VideoLlavaImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    template = TEMPLATE.replace("<img-here>", run).replace("<vid-here>", run.replace("<image>", "<video>"))
    for part in (model, processor, tiny_tokenizer(special, template)):
        part.save_pretrained(folder)


def llava_next_processor() -> Any:
    """A whole processor: this family's needs no torchvision."""
    tiny, template = tiny_llava_next, TEMPLATE.replace("<img-here>", "<image>")
    side = {"height": tiny.SIDE, "width": tiny.SIDE}
    special = {"<image>": tiny.IMAGE_TOKEN, "<|im_start|>": 95, "<|im_end|>": 94}
    return transformers.LlavaNextProcessor(
        LlavaNextImageProcessorPil(
            size={"shortest_edge": tiny.SIDE}, crop_size=side, image_grid_pinpoints=tiny.PINPOINTS
        ),
        tiny_tokenizer(special, template, image_token="<image>"),
        patch_size=tiny.SIDE // tiny.GRID,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def load_tiny(name: str, folder: Path) -> LoadedModel:
    """A family's tiny model with its processor, through a folder where every release can load one."""
    if name == "llava-next":
        model = widened(name)
        family = find_family(model)
        source = ModelSource("tiny", "tiny", "tiny", None, True)
        return LoadedModel(model, llava_next_processor(), family, describe(model, family, "tiny", None), source)
    save_folder(name, folder)
    return load_model(str(folder))
