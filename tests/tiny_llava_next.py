"""A random-weight LLaVA-NeXT of the real architecture, small enough to build in every test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tiny_llava import full_inputs, left_padded
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, LlavaNextForConditionalGeneration

from claspkit.runtime.families.base import Family, repeated

__all__ = ["GRID", "IMAGE_TOKEN", "PICTURES", "SIDE", "batch", "build", "full_inputs", "fusing", "words"]

IMAGE_TOKEN = 99
PAD = 0
SIDE, GRID = 24, 3  # a tile is 24 pixels and 3 patches wide
PINPOINTS = [[24, 48], [48, 24], [48, 48], [72, 24], [24, 72]]
# (height, width) -> tiles and tokens by hand: 9 of the overview + rows x (columns + 1 newline) of what is not padding.
PICTURES = {
    (24, 48): (3, 30),  # 9 + 3 * (6 + 1)
    (48, 24): (3, 33),  # 9 + 6 * (3 + 1)
    (48, 48): (5, 51),  # 9 + 6 * (6 + 1)
    (14, 48): (3, 16),  # 2 of 3 rows of patches lie in the padding: 9 + 1 * (6 + 1)
    (24, 72): (4, 39),  # 9 + 3 * (9 + 1)
    (70, 20): (4, 45),  # 9 + 9 * (3 + 1)
}
_KINDS: dict[str, list[list[int | tuple[int, int]]]] = {  # a number stands for so many words, a pair for a picture
    "single": [[2, (24, 48), 5]],
    "padded": [[2, (14, 48), 3], [2, (48, 48), 8], [2, (24, 72), 5]],
    "several": [[2, (24, 48), 4, (14, 48), 5], [3, (48, 24), 4]],
    "mixed": [[2, (70, 20), 6], [9]],
    "text": [[12]],
}


def build(attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float32, depth: int = 6) -> Any:
    """``LlavaNextForConditionalGeneration`` with 4 vision blocks and ``depth`` decoder layers."""
    torch.manual_seed(seed)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=SIDE,
            patch_size=SIDE // GRID,
        ),
        text_config=LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=depth,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=PAD,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-2,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=GRID * GRID,
    )
    model: Any = LlavaNextForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # random init is nearly linear; larger weights make attention and answers vary
        model.lm_head.weight[IMAGE_TOKEN] = 0  # an answer that names a placeholder could not be read again
    model.generation_config.eos_token_id = None  # tests compare full-length answers
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def batch(kind: str, seed: int = 1) -> dict[str, Tensor]:
    """A left-padded batch of one of the kinds "single", "padded", "several", "mixed", "text"."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[list[int]] = []
    sizes: list[tuple[int, int]] = []
    for pieces in _KINDS[kind]:
        row: list[int] = []
        for piece in pieces:
            if isinstance(piece, int):
                row += words(piece, generator)
            else:
                row += [IMAGE_TOKEN] * PICTURES[piece][1]
                sizes.append(piece)
        rows.append(row)
    if not sizes:
        return left_padded(rows, PAD)
    tiles = [PICTURES[size][0] for size in sizes]
    pixels = torch.zeros(len(sizes), max(tiles), 3, SIDE, SIDE)
    for picture, count in zip(pixels, tiles, strict=True):
        picture[:count] = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return {**left_padded(rows, PAD), "pixel_values": pixels, "image_sizes": torch.tensor(sizes)}


def words(count: int, generator: torch.Generator) -> list[int]:
    """Random ids that are neither special nor placeholders."""
    ids: list[int] = torch.randint(10, 98, (count,), generator=generator).tolist()
    return ids


@contextmanager
def fusing(
    model: Any, family: Family, inputs: dict[str, Tensor], shares: list[dict[int, float]]
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The pruner's vision hooks in their plainest form: picture i takes ``shares[i][layer]`` of each layer.

    Yields a list that fills with what the projector was given by the model and what it got instead.
    """
    visuals = iter(family.visual_inputs(model, inputs))
    per_picture = iter(shares)
    seen: dict[tuple[str, int], Tensor] = {}
    swaps: list[tuple[Tensor, Tensor]] = []

    def swap(_: Any, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        visual = next(visuals)
        mine = [next(per_picture) for _ in visual.units]
        units = []
        for unit, picture in enumerate(repeated(visual.units)):
            parts = [share * seen[visual.tower, layer][unit] for layer, share in mine[picture].items()]
            units.append(torch.stack(parts).sum(0))
        fused = family.projector_input(
            model, family.patch_tokens(model, torch.stack(units), visual.tower), visual.tower
        )
        swaps.append((args[0], fused))
        return (fused,)

    handles = [family.projector(model).register_forward_pre_hook(swap)]
    for name, blocks in family.towers(model).items():

        def enter(_: Any, args: tuple[Tensor, ...], name: str = name) -> None:
            seen[name, 0] = args[0]

        handles.append(blocks[0].register_forward_pre_hook(enter))
        for layer, block in enumerate(blocks, start=1):

            def leave(_: Any, __: Any, output: Tensor, place: tuple[str, int] = (name, layer)) -> None:
                seen[place] = output

            handles.append(block.register_forward_hook(leave))
    try:
        yield swaps
    finally:
        for handle in handles:
            handle.remove()
