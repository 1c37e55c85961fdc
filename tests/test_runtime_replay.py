"""Cached features in the encoder's place: the answers, logit by logit, of the run that encodes the pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import tiny_llava_next
import torch
from family_models import CASES, FAMILY_MODELS
from family_oracles import generate, plan_for
from torch import Tensor, nn

from claspkit.cache.encoder import unpack_patches
from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.runtime.families import Family, find_family
from claspkit.runtime.fusion import fuse
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import replay
from claspkit.runtime.vision import rows_of_pictures

STAGES = ((1, 12), (2, 7), (3, 3))
Record = tuple[tuple[int, ...], Tensor]


def encoded(model: Any, family: Family, batch: Mapping[str, Tensor]) -> dict[str, list[Record]]:
    """Grid and all layers (L + 1, tokens, D) of every picture and video of a batch, each encoded alone, by kind."""
    found: dict[str, list[Record]] = {}
    for kind, pixels in (("image", batch.get("pixel_values")), ("video", batch.get("pixel_values_videos"))):
        if pixels is None and kind == "image":
            pixels = batch.get("pixel_values_images")
        if pixels is None:
            continue
        pieces = list(_pieces(model, family, batch, kind, pixels))
        layers = [family.vision_layers(model, piece, kind).flatten(1, 2) for _, piece in pieces]
        found[kind] = [(grid, layer) for (grid, _), layer in zip(pieces, layers, strict=True)]
    return found


def _pieces(
    model: Any, family: Family, batch: Mapping[str, Tensor], kind: str, pixels: Tensor
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """What of the pixels is one picture's, and the grid of its record."""
    vision = model.config.vision_config
    if family.id == "qwen2.5-vl":
        grids = [tuple(grid) for grid in batch[f"{kind}_grid_thw"].tolist()]
        for grid, packed in zip(grids, pixels.split([t * h * w for t, h, w in grids]), strict=True):
            unpacked = unpack_patches(packed, grid, vision)
            yield ((*grid, 2 * grid[0]), unpacked) if kind == "video" else (grid, unpacked)
    elif family.id == "llava-next":
        (visual,) = family.visual_inputs(model, batch)
        for size, tiles, padded in zip(batch["image_sizes"].tolist(), visual.units, pixels, strict=True):
            yield tuple(size), padded[:tiles]
    elif kind == "video":
        side = vision.image_size // vision.patch_size
        yield from (((len(frames), side, side), frames) for frames in pixels)
    else:  # one tile of an InternVL picture is as good as a picture
        yield from ((() if family.id == "llava" else (1,), picture[None]) for picture in pixels)


def replayed_records(
    model: Any, family: Family, batch: Mapping[str, Tensor], shares: list[dict[int, float]]
) -> tuple[list[Tensor], list[tuple[int, ...]]]:
    """Every record fused by its row's shares, and its grid."""
    records, grids = [], []
    visuals = {visual.tower: visual for visual in family.visual_inputs(model, batch)}
    for kind, found in encoded(model, family, batch).items():
        visual = visuals[kind]
        rows = rows_of_pictures(visual.tokens, (batch["input_ids"] == visual.token_id).sum(dim=1).tolist())
        for row, (grid, layers) in zip(rows, found, strict=True):
            chosen = layers[list(shares[row])][:, None]
            records.append(fuse(chosen, torch.tensor([list(shares[row].values())], dtype=torch.float64))[0])
            grids.append(grid)
    return records, grids


def blanked(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch with NaN for pixels: whatever looks at one spoils the answer."""
    return {
        name: torch.full_like(value, torch.nan) if name.startswith("pixel") else value
        for name, value in batch.items()
    }


@contextmanager
def encoder_calls(model: Any, family: Family) -> Iterator[list[str]]:
    """Collects the name of every module of the encoders that is run, but for shells whose inside is not."""
    calls: list[str] = []
    inside = {
        part
        for blocks in family.towers(model).values()
        for block in blocks
        for part in block.modules()
        if part is not block
    }
    cutting = {part for part in family.trunk(model).modules() if isinstance(part, nn.Conv2d | nn.Conv3d)}
    handles = [
        part.register_forward_hook(lambda module, *_: calls.append(type(module).__name__)) for part in inside | cutting
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def difference(stock: Any, other: Any) -> float:
    """Largest difference of logits over all steps, relative to theirs; inf where ids differ."""
    if not torch.equal(stock.sequences, other.sequences):
        return float("inf")
    pairs = list(zip(stock.logits, other.logits, strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(a.abs().max()) for a, _ in pairs)


# What a stock call sees of the records is what a pruned one sees: one kind of batch of each family shows it.
@pytest.mark.parametrize(
    ("family", "kind", "pruned"),
    [*((*case, True) for case in CASES), *((family, "padded", False) for family in FAMILY_MODELS)],
)
def test_replayed_answers_are_the_real_ones(family: str, kind: str, pruned: bool) -> None:
    """Stock and pruned, each row with a fusion and split of its own, over 16 steps; no part of the encoder is run."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(), tiny.batch(kind)
    chosen, rows = find_family(model), len(batch["input_ids"])
    layer = chosen.facts(model).default_layer
    stock = plan_for(model, rows, STAGES if pruned else ())
    shares = [({1: 0.25, layer: 0.75}, {2: 0.5, layer: 0.5}, {layer: 1.0})[row % 3] for row in range(rows)]
    if not pruned:
        shares = [{layer: 1.0}] * rows
    plan = PrunePlan(
        stock.stages,
        tuple(
            RowPlan(tuple(share), tuple(share.values()), row.rho) for share, row in zip(shares, stock.rows, strict=True)
        ),
    )
    with apply_plan(model, chosen, plan), encoder_calls(model, chosen) as calls:
        wanted = generate(model, batch)
    assert len(calls) > 20
    records, grids = replayed_records(model, chosen, batch, shares)
    with (
        replay(model, chosen, records, grids),
        apply_plan(model, chosen, stock) as surgery,
        encoder_calls(model, chosen) as none,
    ):
        got = generate(model, blanked(batch))
    assert none == []
    assert bool(surgery.last) == pruned
    assert difference(wanted, got) <= 1e-5


def test_records_that_are_other_give_other_answers() -> None:
    """The comparison above can fail: with another layer, the logits are not those."""
    tiny = tiny_llava_next
    model, batch = tiny.build(), tiny.batch("padded")
    family, wanted = find_family(model), generate(model, batch)
    for layer, alike in ((3, True), (2, False)):
        with replay(model, family, *replayed_records(model, family, batch, [{layer: 1.0}] * 3)):
            assert (difference(wanted, generate(model, batch)) <= 1e-5) == alike


@pytest.mark.parametrize("family", FAMILY_MODELS)
def test_everything_is_taken_off_again(family: str) -> None:
    """After the block and after an error no module has a forward of its own, and what others had put on is back."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(), tiny.batch("single")
    chosen = find_family(model)
    layer = chosen.facts(model).default_layer
    records, grids = replayed_records(model, chosen, batch, [{layer: 1.0}])
    wanted = generate(model, batch)

    def fail_inside() -> None:
        with replay(model, chosen, records, grids):
            assert any("forward" in vars(part) for part in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert not any("forward" in vars(part) for part in model.modules())
    wrapped = next(iter(chosen.replayed(model, {"image": records[0]})))
    own = vars(wrapped)["forward"] = wrapped.forward
    with replay(model, chosen, records, grids):
        assert vars(wrapped)["forward"] is not own
    assert vars(wrapped)["forward"] is own
    assert difference(wanted, generate(model, batch)) == 0.0


@pytest.mark.parametrize("family", FAMILY_MODELS)
def test_what_does_not_fit_is_refused(family: str) -> None:
    """Records of another size, grids of another family, too few of either, and a call with other pictures."""
    tiny = FAMILY_MODELS[family]
    model, batch = tiny.build(), tiny.batch("single")
    chosen = find_family(model)
    layer = chosen.facts(model).default_layer
    records, grids = replayed_records(model, chosen, batch, [{layer: 1.0}])
    with pytest.raises(MismatchError, match="does not fit its grid"), replay(model, chosen, [records[0][1:]], grids):
        pass
    with pytest.raises(MismatchError, match="has the grid"), replay(model, chosen, records, [(1, 2, 3, 4, 5)]):
        pass
    with pytest.raises(UsageError, match="got 1 records, 0 grids"), replay(model, chosen, records, []):
        pass
    with pytest.raises(UsageError, match="one record per picture"), replay(model, chosen, records, grids):
        generate(model, tiny.batch("several"))
    fusing = PrunePlan(STAGES, (RowPlan((1, layer), (0.5, 0.5), 0.5),))
    if family != "qwen2.5-vl":  # its blocks are passed through, so every layer is the one that was replayed
        with (
            replay(model, chosen, records, grids),
            apply_plan(model, chosen, fusing),
            pytest.raises(UsageError, match="fused before they are replayed"),
        ):
            generate(model, batch)
    assert not any("forward" in vars(part) for part in model.modules())


def test_one_forward_is_replayed_too() -> None:
    """Not only ``generate``: a plain pass gives the stock logits."""
    for tiny in FAMILY_MODELS.values():
        model, batch = tiny.build(), tiny.batch("padded")
        family = find_family(model)
        with torch.no_grad():
            wanted = model(**batch).logits
            records = replayed_records(model, family, batch, [{family.facts(model).default_layer: 1.0}] * 3)
            with replay(model, family, *records):
                got = model(**blanked(batch)).logits
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(got[real], wanted[real], rtol=0, atol=1e-5 * float(wanted[real].abs().max()))
