"""The study of mini on fresh questions: its answers, its chance, its FLOPs, its comparisons, its picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.dom import minidom

import numpy as np
import pytest
import torch
from house import ROOT
from pipeline_runs import calibrate

from claspkit.cache.store import FeatureStore
from claspkit.calib.data_mini import MiniSource
from claspkit.calib.evaluator import Evaluator
from claspkit.calib.finished import read_finished
from claspkit.calib.plan import decoder_flops
from claspkit.calib.samples import Sample
from claspkit.calib.sources import SourceOptions
from claspkit.calib.space import Candidate, make_space
from claspkit.mini.layout import plan_layout
from claspkit.mini.samples import CALIBRATION_SEED
from claspkit.profiles.budget import Stage
from claspkit.profiles.errors import UsageError
from claspkit.runtime.families import FamilyFacts
from claspkit.runtime.models import LoadedModel, load_model

STAGES = ((1, 17), (2, 9), (4, 5))
SEED = 3_000_000


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import a file of benchmarks/, which finds those beside it as when it is run."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module


@pytest.fixture(scope="module")
def mini() -> LoadedModel:
    """The embedded model."""
    return load_model("mini")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures lie."""
    return tmp_path_factory.mktemp("fresh")


@pytest.fixture(scope="module")
def drawn(folder: Path) -> list[Sample]:
    """All questions about four pictures or so."""
    return MiniSource(SourceOptions(None, "mini", folder / "images", per_class=4, seed=SEED)).load().samples


@pytest.fixture
def store(part: Callable[[str], Any], mini: LoadedModel, drawn: list[Sample], folder: Path) -> Iterator[FeatureStore]:
    """The vision layers of their pictures."""
    with part("_mini_fresh").encode_fresh(mini, drawn, folder) as opened:
        yield opened


def facts(mini: LoadedModel) -> FamilyFacts:
    """The sizes of mini's decoder."""
    return mini.family.facts(mini.model)


def test_answers_are_those_of_a_calibration(
    part: Callable[[str], Any], mini: LoadedModel, drawn: list[Sample], store: FeatureStore
) -> None:
    """On one block, every candidate and the stock model answer as the evaluator has it."""
    answers, space, block = part("_mini_answers"), make_space(mini.spec.default_layer), drawn[:16]
    candidates = [space.default, Candidate(space.prototypes[2], 0.3), Candidate(space.prototypes[0], 0.0)]
    ways = [answers.Way.of(candidate, STAGES) for candidate in candidates]
    stock = answers.Way((), (mini.spec.default_layer,), (1.0,))
    found = answers.Asker(mini, store).answers(block, [*ways, stock])
    evaluator = Evaluator(mini, store, [Stage(*stage) for stage in STAGES], answers.MAX_NEW_TOKENS)
    for way, candidate in zip(ways, candidates, strict=True):
        (result,) = next(iter(evaluator.evaluate(block, [candidate])))
        assert found[way] == list(result.answers)
    assert found[stock] == list(evaluator.unpruned(block).answers)
    assert len({tuple(said) for said in found.values()}) > 1


def test_random_tokens_are_a_samples_own(
    part: Callable[[str], Any], mini: LoadedModel, drawn: list[Sample], store: FeatureStore
) -> None:
    """Each stage keeps the best of one draw per sample, the same in any batch; two samples differ."""
    answers = part("_mini_answers")
    seen: dict[str, list[list[int]]] = {}

    def watch(_: object, block: Sequence[Sample], stages: Sequence[Any], __: object) -> None:
        for row, sample in enumerate(block):
            kept = [[token for token, _ in stage.row(row)] for stage in stages]
            assert seen.setdefault(sample.uid, kept) == kept

    asker = answers.Asker(mini, store, watch=watch)
    way = answers.Way(STAGES, (mini.spec.default_layer,), (1.0,), saliency=answers.RANDOM)
    asker.answers(drawn[:6], [way])
    asker.answers(drawn[3:12], [way])
    scores = answers.random_scores(drawn[:12], mini.spec.visual_tokens)
    assert scores.shape == (12, mini.spec.visual_tokens)
    for row, sample in enumerate(drawn[:12]):
        expected = [sorted(scores[row].topk(keep).indices.tolist()) for _, keep in STAGES]
        assert seen[sample.uid] == expected
    assert len({str(kept) for kept in seen.values()}) == 12


def test_stages_of_equal_flops_are_the_largest_that_fit(part: Callable[[str], Any], mini: LoadedModel) -> None:
    """One token more is too much, and where one alone is too much there is no such schedule."""
    same_flops, sizes = part("_mini_kept").same_flops, facts(mini)
    limit = decoder_flops([Stage(*stage) for stage in STAGES], sizes)
    for layers, shares in (((1,), (1.0,)), ((1, 4), (1.0, 0.5)), ((-1,), (1.0,))):
        found = same_flops(layers, shares, limit, sizes)
        assert [layer for layer, _ in found] == list(layers)
        assert decoder_flops([Stage(*stage) for stage in found], sizes) <= limit
        more = [Stage(layer, keep + 1) for layer, keep in found]
        assert decoder_flops(more, sizes) > limit
    assert same_flops((1,), (1.0,), decoder_flops([Stage(1, 9)], sizes), sizes) == ((1, 9),)
    with pytest.raises(ValueError, match="cost at most"):
        same_flops((2,), (1.0,), limit, sizes)  # a third full layer is more than the default's later ones


def test_what_a_question_is_about_is_found_in_the_layout(
    part: Callable[[str], Any], drawn: list[Sample]
) -> None:
    """Counted things are as many as the answer says; the other classes have the one thing they name, or none."""
    kept = part("_mini_kept")
    numbers = {image: number for number, image in enumerate(dict.fromkeys(s.image_sha256 for s in drawn))}
    for sample in drawn:
        layout = plan_layout(CALIBRATION_SEED + SEED, numbers[sample.image_sha256])
        found = kept.asked_about(layout, sample.intent_hint, sample.prompt)
        if sample.intent_hint == "counting":
            assert len(found) == int(sample.answers[0])
        elif sample.intent_hint == "default":
            assert bool(found) == (sample.answers[0] == "yes")
        else:
            assert len(found) == (sample.intent_hint != "scene"), sample.prompt
        if sample.intent_hint == "text":
            assert found[0].detail.lower() == sample.answers[0].replace(" ", "").lower()


def test_a_box_touches_the_patches_under_it(part: Callable[[str], Any]) -> None:
    """A box from pixel 8 to 15 is one patch; one pixel more on one side makes it four, on both nine."""
    kept, layout = part("_mini_kept"), plan_layout(CALIBRATION_SEED, 0)
    item = type(layout.items[0])
    assert kept.patches_of(item("shape", "star", "red", 12, 12, 8, 8, 0.0)) == {13}
    assert kept.patches_of(item("shape", "star", "red", 12, 12, 9, 9, 0.0)) == {13, 14, 25, 26}
    assert kept.patches_of(item("shape", "star", "red", 12, 12, 10, 10, 0.0)) == {0, 1, 2, 12, 13, 14, 24, 25, 26}
    assert kept.patches_of(item("shape", "star", "red", 95, 0, 4, 4, 0.0)) == {11}


def test_saliency_that_knows_the_question_keeps_what_it_is_about(
    part: Callable[[str], Any], mini: LoadedModel, drawn: list[Sample], store: FeatureStore
) -> None:
    """All tokens kept lie on what is asked about, or none; and numbers that come out too high are counted."""
    kept, answers = part("_mini_kept"), part("_mini_answers")
    numbers = {image: number for number, image in enumerate(dict.fromkeys(s.image_sha256 for s in drawn))}
    watcher = kept.Watcher(numbers, SEED)
    asker = answers.Asker(mini, store, watch=watcher.watch, outside=watcher.outside())
    block = [sample for sample in drawn if sample.intent_hint in ("text", "scene")]
    ways = {
        name: answers.Way(((1, 4),), (7,), (1.0,), saliency=name) for name in (kept.ASKED, kept.OTHERS, answers.RANDOM)
    }
    asker.answers(block, list(ways.values()))
    shares = {name: watcher.kept(way, "text") for name, way in ways.items()}
    assert (shares[kept.ASKED].covered, shares[kept.ASKED].share) == (1.0, 1.0)
    assert (shares[kept.OTHERS].covered, shares[kept.OTHERS].share) == (0.0, 0.0)
    assert watcher.kept(ways[kept.ASKED], "scene") is None
    assert shares[kept.ASKED].above is None
    counted = [sample for sample in drawn if sample.intent_hint == "counting"]
    stage = type("Stage", (), {"row": lambda self, row: [(0, "pivot")]})()
    said = [str(int(sample.answers[0]) + shift) for sample, shift in zip(counted, (1, 0, -1, 0), strict=False)]
    watcher.watch(ways[kept.ASKED], counted[:4], [stage], said[:4])
    found = watcher.kept(ways[kept.ASKED], "counting")
    assert (found.above, found.below) == (0.25, 0.25)


def test_comparisons_are_paired_and_weigh_classes_alike(part: Callable[[str], Any], drawn: list[Sample]) -> None:
    """Known scores: the mean over classes is not that of all samples; equal scores have no interval."""
    ways, fresh = part("_mini_ways"), part("_mini_fresh")
    classes = {"text": drawn[:2], "scene": drawn[2:6]}
    asked = fresh.Fresh(classes, 0, 6, {})
    better = {"text": np.array([1.0, 1.0]), "scene": np.array([0.0, 0.0, 0.0, 1.0])}
    worse = {"text": np.array([0.0, 0.0]), "scene": np.array([0.0, 0.0, 0.0, 1.0])}
    found = ways.compare(asked, better, worse, 0)
    assert found["text"] == (1.0, 1.0, 1.0)
    assert found["scene"] == (0.0, 0.0, 0.0)
    assert found["mean"][0] == 0.5
    assert ways.means(better) == {"text": 1.0, "scene": 0.25, "mean": 0.625}
    everything = {"default": worse, "random": better, "calibrated": better}
    apart = ways.to_default(asked, everything, 0)
    assert list(apart) == ["random", "calibrated"]
    assert ways.worse_than_random(apart) == ["text"]
    rows = {row.what: row for row in ways.rows_of(everything, apart)}
    assert (rows["calibrated minus default: mean"].value, rows["calibrated minus default: mean"].holds) == (50.0, True)
    assert (rows["random minus default: mean"].holds, rows["default: mean"].value) == (None, 12.5)
    assert ways.shown((-0.001, -0.02, 0.03)) == "-0.1 [-2.0, +3.0]"


def test_the_picture_says_everything_in_words(part: Callable[[str], Any]) -> None:
    """Well-formed, each way once in the legend, and no more ways than shapes."""
    chart = part("_mini_chart")
    apart = {f"way {n} <&>": {"object": (0.1 * n, 0.0, 0.2 * n), "mean": (-0.1, -0.2, 0.0)} for n in range(6)}
    document = minidom.parseString(chart.draw(apart, "a title"))
    texts = [node.firstChild.data for node in document.getElementsByTagName("text")]  # type: ignore[union-attr]
    assert [text for text in texts if text.startswith("way")] == list(apart)
    described = document.getElementsByTagName("desc")[0].firstChild.data  # type: ignore[union-attr]
    assert "way 3 <&>: object +30.0, mean -10.0" in described
    with pytest.raises(ValueError, match="7 ways in one picture"):
        chart.draw({**apart, "one more": apart["way 1 <&>"]}, "a title")


@pytest.mark.long
def test_the_study_of_a_small_run(
    part: Callable[[str], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Balanced fresh questions in every way, as JSON; pictures of the run's own and other mistakes are refused."""
    script, fresh = part("mini_study"), part("_mini_fresh")
    calibrate(tmp_path / "run", strategy="race")
    common = [str(tmp_path / "run"), "--samples", "20", "--work", str(tmp_path / "work")]
    script.main([*common, "--json", "--picture", str(tmp_path / "a.svg")])
    rows = {row["what"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    names = [what.split(":")[0] for what in rows if what.endswith(": object") and "minus" not in what]
    assert names[:4] == ["unpruned", "default", "calibrated", "paper's rho"]
    assert names[-2:] == ["random", "random, 44 before"]
    assert all(0 <= rows[f"{name}: mean"]["value"] <= 100 for name in names)
    assert rows["calibrated minus default: mean"]["holds"] is not None
    assert "<svg" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    script.main([*common, "--json", "--alternatives", "counting"])
    closer = {row["what"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"counting: default", "counting: tokens on anything else, number too low"} <= closer
    assert "counting: saliency last, features hidden, rho 0.3 minus default" in closer
    run = read_finished(tmp_path / "run")
    drawn = fresh.draw_fresh(run, 20, SEED, tmp_path / "work")
    assert sorted(map(len, drawn.classes.values())) == [2] * 7 + [3] * 2
    for wrong, told in (((20, 0), "--seed 0 is the run's own"), ((8, SEED), "fewer than one for each")):
        with pytest.raises(UsageError, match=told):
            fresh.draw_fresh(run, *wrong, tmp_path / "work")
    with pytest.raises(SystemExit, match=r"no class rabbits; there are object"):
        script.main([*common, "--alternatives", "rabbits"])
    with pytest.raises(SystemExit):
        script.parse(["run", "--picture", "a.png"])
    assert torch.is_grad_enabled()
