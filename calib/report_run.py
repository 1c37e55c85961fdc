"""Writes a run's report.html, and the galleries in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claspkit.cache.store import FeatureStore
from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.errors import ClaspError, CorruptError, UsageError
from claspkit.runtime.models import LoadedModel

from .folder import RunFolder
from .gallery import FURTHER_SHOWN, SHOWN, pick, write_gallery
from .gallery_draw import draw_gallery
from .progress import Reporter
from .report import render_report
from .report_found import collect
from .run_model import load_run_model, open_run_features, source_options
from .space import Candidate
from .summary_budgets import at_budget, nominals
from .view import RunView, read_view

MOST_SHOWN = 8
"""Right samples, and wrong ones, that the gallery may show of a class."""


def report_view(view: RunView, gallery: int | None, device: str, number: int = 0) -> Path:
    """Write the report of a finished run; returns where.

    Args:
        view: the run.
        gallery: draw so many right and so many wrong samples per class anew, which loads the model; 0 takes the gallery
            away, None leaves it as it is.
        device: torch device for that.
        number: of the budget whose samples are drawn, the first being 0.

    Raises:
        UsageError: the model or its features cannot be had.
        MismatchError: the model is not the one that was calibrated.
        CorruptError: a damaged gallery.
    """
    if gallery == 0:
        _place(view, number).unlink(missing_ok=True)
    elif gallery:
        chosen = _chosen(view, number)
        loaded = load_run_model(view.config, view.facts, view.folder, device)
        used = {
            data.holdout[place].image_sha256
            for data in view.classes
            if view.ledger is not None
            for place in pick(data, view.ledger, chosen[data.intent].id, gallery)
        }
        with open_run_features(loaded, view.config, view.facts, view.folder, used) as store:
            _draw(view, loaded, store, gallery, number)
    return _write(view)


def draw_and_report(folder: RunFolder, loaded: LoadedModel, store: FeatureStore, reporter: Reporter) -> None:
    """Draw the galleries at the end of a calibration, and write the report.

    The result stands by then: what cannot be drawn is told and leaves no gallery, and the run goes on.
    """
    view = read_view(folder.root)
    for number in range(max(1, len(view.spaces))):
        try:
            _draw(view, loaded, store, FURTHER_SHOWN if number else SHOWN, number)
        except ClaspError as error:
            _place(view, number).unlink(missing_ok=True)
            reporter.warn(f"no samples are drawn in the report: {error}")
    _write(view)


def _write(view: RunView) -> Path:
    assert view.summary is not None
    data = render_report(view.summary, collect(view)).encode()
    try:
        write_atomic(view.folder.report, data)
    except OSError as error:
        raise UsageError(
            f"{view.folder.report} cannot be written ({error.strerror}); report on a copy of the run in a folder where "
            "you may write: cp -r"
        ) from None
    return view.folder.report


def _draw(view: RunView, loaded: LoadedModel, store: FeatureStore, count: int, number: int) -> None:
    assert view.summary is not None
    if view.ledger is None:
        raise CorruptError(f"{view.folder.ledger} is gone, and with it the answers that a gallery shows")
    gallery = draw_gallery(
        loaded,
        store,
        [(int(layer), int(keep)) for layer, keep in view.facts["stages_used"]],
        view.classes,
        _chosen(view, number),
        view.ledger,
        source_options(view.config, view.folder).sample_root,
        _summary(view, number)["profile_id"],
        count,
    )
    write_gallery(_place(view, number), gallery)


def _place(view: RunView, number: int) -> Path:
    """The file of a budget's gallery."""
    nominal = None if not number or view.summary is None else nominals(view.summary)[number]
    return view.folder.gallery if nominal is None else view.folder.further_gallery(nominal)


def _summary(view: RunView, number: int) -> dict[str, Any]:
    assert view.summary is not None
    return at_budget(view.summary, nominals(view.summary)[number])


def _chosen(view: RunView, number: int) -> dict[str, Candidate]:
    """Class -> configuration of the profile at one budget."""
    rows = _summary(view, number)["classes"]
    try:
        return {row["intent"]: view.spaces[number].find(row["chosen"]) for row in rows}
    except (IndexError, KeyError):
        raise CorruptError(
            f"{view.folder.root} was searched over other configurations than this version of claspkit has; its samples "
            "cannot be drawn"
        ) from None
