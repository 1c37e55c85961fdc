"""Writes a run's report.html, and the gallery in it."""

from __future__ import annotations

from pathlib import Path

from claspkit.cache.store import FeatureStore
from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.errors import ClaspError, CorruptError
from claspkit.runtime.models import LoadedModel

from .folder import RunFolder
from .gallery import SHOWN, pick, write_gallery
from .gallery_draw import draw_gallery
from .progress import Reporter
from .report import render_report
from .report_found import collect
from .run_model import load_run_model, open_run_features, source_options
from .space import Candidate
from .view import RunView, read_view

MOST_SHOWN = 8
"""Right samples, and wrong ones, that the gallery may show of a class."""


def report_view(view: RunView, gallery: int | None, device: str) -> Path:
    """Write the report of a finished run; returns where.

    Args:
        view: the run.
        gallery: draw so many right and so many wrong samples per class anew, which loads the model; 0 takes the gallery
            away, None leaves it as it is.
        device: torch device for that.

    Raises:
        UsageError: the model or its features cannot be had.
        MismatchError: the model is not the one that was calibrated.
        CorruptError: a damaged gallery.
    """
    if gallery == 0:
        view.folder.gallery.unlink(missing_ok=True)
    elif gallery:
        loaded = load_run_model(view.config, view.facts, view.folder, device)
        chosen = _chosen(view)
        used = {
            data.holdout[place].image_sha256
            for data in view.classes
            if view.ledger is not None
            for place in pick(data, view.ledger, chosen[data.intent].id, gallery)
        }
        with open_run_features(loaded, view.config, view.facts, view.folder, used) as store:
            _draw(view, loaded, store, gallery)
    return _write(view)


def draw_and_report(folder: RunFolder, loaded: LoadedModel, store: FeatureStore, reporter: Reporter) -> None:
    """Draw the gallery at the end of a calibration, and write the report.

    The result stands by then: what cannot be drawn is told and leaves no gallery, and the run goes on.
    """
    view = read_view(folder.root)
    try:
        _draw(view, loaded, store, SHOWN)
    except ClaspError as error:
        folder.gallery.unlink(missing_ok=True)
        reporter.warn(f"no samples are drawn in the report: {error}")
    _write(view)


def _write(view: RunView) -> Path:
    assert view.summary is not None
    write_atomic(view.folder.report, render_report(view.summary, collect(view)).encode())
    return view.folder.report


def _draw(view: RunView, loaded: LoadedModel, store: FeatureStore, count: int) -> None:
    assert view.summary is not None
    if view.ledger is None:
        raise CorruptError(f"{view.folder.ledger} is gone, and with it the answers that a gallery shows")
    gallery = draw_gallery(
        loaded,
        store,
        [(int(layer), int(keep)) for layer, keep in view.facts["stages_used"]],
        view.classes,
        _chosen(view),
        view.ledger,
        source_options(view.config, view.folder).sample_root,
        view.summary["profile_id"],
        count,
    )
    write_gallery(view.folder.gallery, gallery)


def _chosen(view: RunView) -> dict[str, Candidate]:
    """Class -> configuration of the profile, at the first budget."""
    assert view.summary is not None
    try:
        return {row["intent"]: view.spaces[0].find(row["chosen"]) for row in view.summary["classes"]}
    except (IndexError, KeyError):
        raise CorruptError(
            f"{view.folder.root} was searched over other configurations than this version of claspkit has; its samples "
            "cannot be drawn"
        ) from None
