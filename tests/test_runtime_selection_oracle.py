"""Selection against the float64 loops on thousands of random ragged batches, in both forms and two precisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from selection_cases import FORMS, as_lists, draw_case, run_case
from selection_reference import Traced, trace_select

ROWS, MOST_TOKENS = 4, 24
CLOSE = 1e-6  # of two cosines that are compared
BORDER = 5e-7  # of a cosine from the edge of the tie tolerance: single precision cannot tell the sides apart
MOST_EXCLUDED = 0.02


def compare(cases: int, seed: int) -> tuple[int, int, list[str]]:
    """Run batches until ``cases`` samples are compared: (compared, excluded in float32, what differed).

    float64 is compared always. float32 is not where the loops found two cosines within 1e-6 of each other that decide
    something (the order of redundancy, a token's best centre), or a cosine within 5e-7 of the edge of the tie rule's
    tolerance: there the rounding of the sums decides, and either answer is right. Pairs inside the tolerance are
    compared: the tie rule is there for them.
    """
    generator = np.random.default_rng(seed)
    done, excluded, wrong = 0, 0, []
    while done < cases:
        case = draw_case(generator, ROWS, MOST_TOKENS)
        expected: list[Traced] = [
            trace_select(
                case.saliency[row].double().numpy(),
                case.features[row].double().numpy(),
                case.keep[row],
                case.pivots[row],
                valid=case.valid[row].numpy(),
            )
            for row in range(ROWS)
        ]
        unclear = [traced.margin.order < CLOSE or traced.margin.tie < BORDER for traced in expected]
        for dtype in (torch.float64, torch.float32):
            for form in FORMS:
                for row, found in enumerate(as_lists(run_case(case, form, dtype))):
                    if dtype == torch.float32 and unclear[row]:
                        continue
                    if found != (expected[row].kept, expected[row].pivots):
                        wrong.append(f"sample {done + row}, {form}, {dtype}: {found} instead of {expected[row]}")
        done += ROWS
        excluded += sum(unclear)
    single = f"{done - excluded} in float32 ({excluded} excluded)"
    print(f"compared {done} samples in float64, {single}, in {len(FORMS)} forms")
    return done, excluded, wrong


def test_five_hundred_samples_equal_the_loops() -> None:
    """Kept sets and pivots, float64 without exception."""
    done, excluded, wrong = compare(500, seed=1)
    assert wrong == []
    assert excluded <= MOST_EXCLUDED * done


@pytest.mark.long
def test_ten_thousand_samples_equal_the_loops() -> None:
    """The same, counted over 10,000 samples."""
    done, excluded, wrong = compare(10_000, seed=2)
    assert done == 10_000
    assert wrong == []
    assert excluded <= MOST_EXCLUDED * done


def test_the_margins_notice_what_is_close() -> None:
    """Two equally redundant tokens, and a pair inside the tolerance but not on its edge."""
    saliency = np.array([0.9, 0.5, 0.4, 0.3])
    alike = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    assert trace_select(saliency, alike, 3, 1).margin.order == 0
    pair = np.array([[1.0, 0, 0], [0.1, 1.0, 0.2], [0.3, 1.0, -0.2], [0, -1.0, 0]])
    assert trace_select(saliency, pair, 3, 1).margin.order > CLOSE
    assert trace_select(saliency, pair, 3, 1).margin.tie == pytest.approx(1e-6)
