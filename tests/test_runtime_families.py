"""The oracles on every family, kind of batch and attention backend."""

from __future__ import annotations

import pytest
import tiny_internvl
from family_models import CASES, FAMILY_MODELS
from family_oracles import identity_difference, removal_difference

from claspkit.runtime.families import FAMILIES, find_family
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.pruner import apply_plan

BACKENDS = ("sdpa", "eager")
STAGES = ((1, 12), (2, 7), (3, 3))


def test_every_family_has_a_model() -> None:
    """A row of FAMILIES without a tiny model would go untested."""
    assert set(FAMILY_MODELS) == set(FAMILIES)
    for name, module in FAMILY_MODELS.items():
        assert find_family(module.build()).id == name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "kind"), [*CASES, *((family, "text") for family in FAMILY_MODELS)])
def test_identity(family: str, kind: str, backend: str) -> None:
    """One-hot on the model's own layer and all tokens kept: the stock model, bit for bit, over 16 decode steps."""
    tiny = FAMILY_MODELS[family]
    assert identity_difference(tiny.build(backend), tiny.batch(kind)) == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("family", "kind"), CASES)
def test_removal_equals_masking(family: str, kind: str, backend: str) -> None:
    """Physical removal equals keeping every token and masking the dropped ones as keys from the stage on."""
    tiny = FAMILY_MODELS[family]
    assert removal_difference(tiny.build(backend), tiny.batch(kind), tiny, STAGES) <= 1e-5


def test_a_tower_with_a_final_norm_is_fused() -> None:
    """InternVL's other form, whose last layer is put together at every look, fuses like the first."""
    model, batch = tiny_internvl.build(mean_pooling=False), tiny_internvl.batch("single")
    plan = PrunePlan(STAGES, (RowPlan((2, 4), (0.5, 0.5), 0.5),))
    with apply_plan(model, find_family(model), plan) as surgery:
        model.generate(**batch, max_new_tokens=2)
    assert [len(stage.row(0)) for stage in surgery.last] == [12, 7, 3]
