"""The report of a real run of mini: race, intervals, costs, gallery; and the page in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from browser import CHROMIUM, NO_BROWSER, console_lines, layout, requests
from commands import claspkit
from PIL import Image
from pipeline_runs import calibrate
from test_calib_report import HOSTILE, Page

from claspkit.calib.apply import Asker
from claspkit.calib.folder import RunFolder
from claspkit.calib.gallery import Gallery, pick, read_gallery
from claspkit.calib.images import open_image
from claspkit.calib.ledger import HOLDOUT, UNPRUNED
from claspkit.calib.report import render_report
from claspkit.calib.report_found import Found, collect
from claspkit.calib.report_gallery import gallery_part
from claspkit.calib.view import RunView, read_view
from claspkit.profiles.errors import CorruptError
from claspkit.profiles.files import read_profile
from claspkit.runtime.models import load_model

in_browser = pytest.mark.skipif(CHROMIUM is None, reason=NO_BROWSER)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that came to its end, two splits to choose from."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    calibrate(folder, rhos=(0.2, 0.6))
    return folder


@pytest.fixture(scope="module")
def view(finished: Path) -> RunView:
    """The same, opened."""
    return read_view(finished)


@pytest.fixture(scope="module")
def found(view: RunView) -> Found:
    """What its records say."""
    return collect(view)


def chart_of(text: str, name: str) -> Page:
    """The chart of that name."""
    (svg,) = re.findall(rf'<svg [^>]*aria-labelledby="{name}-t .*?</svg>', text, flags=re.DOTALL)
    return Page(svg)


def gallery_of(view: RunView) -> Gallery:
    """Its gallery."""
    assert view.summary is not None
    gallery = read_gallery(view.folder.gallery, view.summary["profile_id"])
    assert gallery is not None
    return gallery


def test_the_page_is_well_formed_self_contained_and_small(finished: Path) -> None:
    text = (finished / "report.html").read_text()
    page = Page(text)
    assert len(text.encode()) < 2_000_000
    assert "://" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not {"script", "link", "iframe", "object", "form", "img"} & {tag for tag, _ in page.tags}
    for tag, attrs in page.tags:
        assert "src" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
        start = "data:image/jpeg;base64," if tag == "image" else "#"
        assert (attrs.get("href") or start).startswith(start)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pointed = [goal for _, attrs in page.tags for goal in (attrs.get("aria-labelledby") or "").split()]
    pointed += [(attrs["href"] or "")[1:] for tag, attrs in page.tags if tag in ("a", "use")]
    assert set(pointed) <= set(ids)


def test_every_class_has_a_chart_of_its_search_and_of_its_race(finished: Path, view: RunView, found: Found) -> None:
    text = (finished / "report.html").read_text()
    assert view.summary is not None
    assert found.space is not None
    for row in view.summary["classes"]:
        search = found.searches[row["intent"]]
        chart = chart_of(text, f"points-{row['intent']}")
        drawn = [point for point in search.points if point.difference is not None]
        assert chart.count("path", class_="zero") == 1
        assert chart.count("path", class_="mark") == len(drawn) + len(found.space.prototypes)
        whiskers = chart.count("path", class_="error") + chart.count("path", class_="error whole")
        assert whiskers == sum(point.interval is not None for point in drawn) > 5
        race = chart_of(text, f"race-{row['intent']}")
        assert race.count("rect", class_="bar") == len(search.rungs) >= 1
        assert race.count("rect", class_="heat") == len(found.space.candidates) == 11
        assert race.count("rect", class_="frame won") == 2  # in the map, and in the legend
        assert race.count("rect", class_="frame kept") == 1 + (row["tested"] != "default/0.9")


def test_costs_and_labels_are_drawn_from_the_ledger(finished: Path, found: Found) -> None:
    page = Page((finished / "report.html").read_text())
    assert found.costs.counted
    assert page.count("rect", class_="bar whole") == 2
    assert f"{found.costs.evaluations + found.costs.holdout_evaluations:,}" in page.text
    assert [each.name for each in found.comparisons] == ["labels"]  # the rules labelled, and they go with the profile
    assert page.count("svg", class_="scores") == 1
    assert "Labels of this run against the classes that the data names" in page.text


def test_the_gallery_shows_right_and_wrong_answers_as_the_ledger_has_them(view: RunView) -> None:
    gallery = gallery_of(view)
    assert view.ledger is not None
    assert view.summary is not None
    assert gallery.missing == ()
    assert {shot.right for shot in gallery.shots} == {True, False}
    chosen = {row["intent"]: row["chosen"] for row in view.summary["classes"]}
    for data in view.classes:
        shots = [shot for shot in gallery.shots if shot.intent == data.intent]
        scores = view.ledger.scores(HOLDOUT, data.intent, chosen[data.intent])
        assert sum(shot.right for shot in shots) == min(2, sum(score >= 0.5 for score in scores))
        assert sum(not shot.right for shot in shots) == min(2, sum(score < 0.5 for score in scores))
        places = {sample.uid: place for place, sample in enumerate(data.holdout)}
        for shot in shots:
            place = places[shot.uid]
            assert shot.candidate == chosen[data.intent]
            assert shot.answer == view.ledger.answers(HOLDOUT, data.intent, shot.candidate)[place]
            assert shot.unpruned == view.ledger.answers(HOLDOUT, data.intent, UNPRUNED)[place]
            assert (shot.prompt, shot.answers) == (data.holdout[place].prompt, data.holdout[place].answers)


def test_what_pruning_lost_comes_first_among_the_wrong_ones(view: RunView) -> None:
    assert view.ledger is not None
    assert view.summary is not None
    lost = 0
    for data, row in zip(view.classes, view.summary["classes"], strict=True):
        scores = view.ledger.scores(HOLDOUT, data.intent, row["chosen"])
        stock = view.ledger.scores(HOLDOUT, data.intent, UNPRUNED)
        places = pick(data, view.ledger, row["chosen"], 50)
        assert sorted(places) == list(range(len(data.holdout)))
        wrong = [stock[place] for place in places if scores[place] < 0.5]
        assert wrong == sorted(wrong, reverse=True)
        lost += sum(wrong) > 0
    assert lost > 3


def test_the_tokens_are_those_that_the_pruned_model_keeps(finished: Path, view: RunView) -> None:
    """From cached features in a batch, as drawn, and from the picture alone through the profile: the same tokens."""
    loaded, profile = load_model("mini"), read_profile(finished / "profile")
    shots = gallery_of(view).shots
    assert len(shots) > 9
    same = total = 0
    for shot in shots:
        picture = open_image(shot.image, finished / "images")
        answer = Asker(loaded, profile, finished / "profile").ask(picture, shot.prompt, shot.intent, 4, compare=False)
        assert [stage.after_layer for stage in shot.stages] == [stage.after_layer for stage in answer.stages]
        for mine, its in zip(shot.stages, answer.stages, strict=True):
            assert len(mine.kept) == len(its.kept)
            assert set(mine.pivots) <= set(mine.kept)
            same += len(set(mine.kept) & set(its.kept))
            total += len(its.kept)
        decoded = Image.open(io.BytesIO(base64.b64decode(shot.jpeg)))
        assert decoded.width == decoded.height >= 90
    assert same / total > 0.98  # float16 features of the cache may turn a near tie of two tokens


def test_a_gallery_is_read_back_whole_or_not_at_all(view: RunView, tmp_path: Path) -> None:
    assert view.summary is not None
    gallery = gallery_of(view)
    assert read_gallery(view.folder.gallery, "0" * 64) is None
    assert read_gallery(tmp_path / "none.json", gallery.profile_id) is None
    data = view.folder.gallery.read_bytes()
    other = data.replace(b'"kept":[', b'"kept":[1,', 1)
    for damaged in (data[:-20], other, b"{}", b'{"sha256":"x","body":{"shots":1}}'):
        (tmp_path / "gallery.json").write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"gallery\.json is damaged"):
            read_gallery(tmp_path / "gallery.json", gallery.profile_id)


def test_report_draws_more_or_takes_the_gallery_away(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    assert claspkit("report", str(run), "--gallery", "1") == 0
    one = gallery_of(read_view(run))
    assert max(sum(shot.intent == intent for shot in one.shots) for intent in {shot.intent for shot in one.shots}) == 2
    assert claspkit("report", str(run), "--gallery", "0") == 0
    assert not RunFolder(run).gallery.exists()
    assert "claspkit report RUN --gallery 2" in (run / "report.html").read_text()


def test_a_picture_that_is_gone_is_told_and_the_others_are_drawn(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    gone = gallery_of(read_view(run)).shots[0].image
    (run / "images" / gone).unlink()
    assert claspkit("report", str(run), "--gallery", "2") == 0
    gallery = gallery_of(read_view(run))
    assert gone not in {shot.image for shot in gallery.shots}
    assert any(gone in reason for reason in gallery.missing)
    assert gone in (run / "report.html").read_text()
    shutil.rmtree(run / "cache")
    assert claspkit("report", str(run), "--gallery", "2") == 2
    assert "claspkit calibrate --model mini" in capsys.readouterr().err


def test_hostile_prompts_answers_and_names_come_out_as_text(view: RunView, found: Found) -> None:
    gallery = gallery_of(view)
    spoilt = tuple(
        replace(
            shot, prompt=HOSTILE, answer=HOSTILE, unpruned=HOSTILE, image=HOSTILE, answers=(HOSTILE,), candidate=HOSTILE
        )
        for shot in gallery.shots
    )
    text = gallery_part(replace(gallery, shots=spoilt, missing=(HOSTILE,)), dict.fromkeys(found.searches, HOSTILE))
    assert "<script" not in text
    assert "<img" not in text
    assert not {"\x1b", "\u202e", "\ud800"} & set(text)
    row = dict.fromkeys(("rule", "said", "now"), HOSTILE) | {"samples": 1, "prompts": [HOSTILE]}
    labels = {**found.labels, "overrides": [row]}
    assert view.summary is not None
    hostile = json.loads(json.dumps(view.summary))
    for row in hostile["classes"]:
        row["name"] = HOSTILE
    whole = render_report(hostile, replace(found, labels=labels, gallery=replace(gallery, shots=spoilt)))
    assert "<script" not in whole
    assert "<img" not in whole
    assert "alert(1)</script>" in Page(whole).text


def test_the_end_of_a_calibration_does_not_hang_on_its_gallery(finished: Path, tmp_path: Path) -> None:
    """All pictures are gone when the finished run is taken up again: same profile, a report, and the reasons in it."""
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    before = read_profile(run / "profile").profile_id
    for path in (run / "images").iterdir():
        path.unlink()
    assert calibrate(run, rhos=(0.2, 0.6)).profile.profile_id == before
    gallery = gallery_of(read_view(run))
    assert gallery.shots == ()
    assert gallery.missing
    assert "Left out: " in (run / "report.html").read_text()


@in_browser
def test_the_page_writes_nothing_to_the_console_and_asks_for_nothing(finished: Path, tmp_path: Path) -> None:
    page = finished / "report.html"
    assert console_lines(tmp_path, page) == []
    assert requests(tmp_path, page) == set()


@in_browser
def test_the_browser_checks_find_a_planted_breach(tmp_path: Path) -> None:
    """A picture from elsewhere and a script: refused by the policy, which the console tells; asked for without it."""
    planted = '<img src="http://127.0.0.1:9/x.png"><script>1</script>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'\">"
    (tmp_path / "refused.html").write_text(f"<!DOCTYPE html><head>{policy}</head><body>{planted}")
    (tmp_path / "open.html").write_text(f"<!DOCTYPE html><body>{planted}")
    assert console_lines(tmp_path, tmp_path / "refused.html")
    assert requests(tmp_path, tmp_path / "open.html") == {"http://127.0.0.1:9/x.png"}


@in_browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_every_chart_has_marks_and_nothing_leaves_the_window(
    finished: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    found = layout(tmp_path, finished / "report.html", width, dark=dark)
    assert found["inner"] == width
    assert found["page"] <= width
    assert found["wide"] == []
    assert len(found["charts"]) > 9 + 9 + 3
    assert all(chart["marks"] > 0 and chart["width"] > 100 for chart in found["charts"])
    assert found["pictures"] > 9
    red = int((re.findall(r"\d+", found["colour"]) or ["-1"])[0])
    assert (red < 80) == dark
