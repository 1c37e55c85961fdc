"""report.html: one self-contained page that says what a run found and whether to believe it.

No script, no request to anywhere, no file beside it. Whatever comes from data or from a file is escaped where it is
put between tags (:func:`.charts.esc`); every chart carries a text alternative and its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from string import Template
from typing import Any

from .charts import data_table, esc
from .charts_compute import compute_figure
from .output import html_page
from .picture_scores import SCORES_STYLE
from .report_budgets import budgets_part
from .report_classes import MISSING, classes_part, curves_part, short, weights_part
from .report_fit import fit_parts
from .report_found import Found
from .report_gallery import GALLERY_STYLE
from .report_search import comparisons_part, costs_part, overrides_part, race_part
from .report_style import STYLE
from .table import headline, holdout_means, percent, router_words

MOST_BYTES = 1_950_000
"""Of the whole page, so that it stays below 2 MB."""

_FRAME_BYTES = 20_000  # style, verdict, links and headings

QUARANTINE_SHOWN = 100
"""Quarantined rows listed; the others are counted."""

Summary = dict[str, Any]


def render_report(summary: dict[str, Any], found: Found | None = None) -> str:
    """Return the report as HTML text, encodable as UTF-8 whatever the data holds.

    It stays below 2 MB: charts of further budgets and samples are left out, and named, where there is no room for them.

    Args:
        summary: what :func:`claspkit.calib.outcome.summarise` made, or the same read back from summary.json.
        found: what the run's records say beyond that; without it there are no race, gallery, intervals and FLOPs.
    """
    title = esc(f"Calibration of {summary['model']['id']}")
    parts = {name: body(summary, found) for name, (_, body) in _SECTIONS.items()}
    spent = sum(len(part.encode()) for part in parts.values())
    fitted = fit_parts(summary, found, MOST_BYTES - _FRAME_BYTES - spent)
    bodies = {name: part for name, part in {**parts, **fitted}.items() if part}
    titles = {name: title for name, (title, _) in _SECTIONS.items() if name in bodies}
    sections = [
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{titles[name]}</h2>{bodies[name]}</section>'
        for name in titles
    ]
    links = "".join(f'<li><a href="#{name}">{words}</a></li>' for name, words in titles.items())
    body = _BODY.substitute(title=title, links=links, verdict=_verdict(summary), sections="\n".join(sections))
    style = STYLE + SCORES_STYLE + GALLERY_STYLE
    return html_page(title, style, body, pictures=True)


def _verdict(summary: Summary) -> str:
    means = holdout_means(summary["classes"])
    budget, model = summary["budget"], summary["model"]
    tiles = (
        ("Unpruned", percent(means["unpruned"], MISSING), f"{model['visual_tokens']} visual tokens"),
        ("Default pruning", percent(means["default"], MISSING), f"{budget['nominal']} visual tokens, nominal"),
        ("This profile", percent(means["profile"], MISSING), "same budget"),
    )
    return (
        f'<p class="verdict">{esc(headline(summary))}</p><dl class="tiles">'
        + "".join(
            f"<div><dt>{esc(name)}</dt><dd><b>{esc(value)}</b><small>{esc(note)}</small></dd></div>"
            for name, value, note in tiles
        )
        + '</dl><p class="note">Holdout score in percent, averaged over the classes that have holdout samples, each '
        "class weighing the same. A class leaves the default only where the holdout, which the search never saw, "
        "shows a significant gain. The gains of the classes that passed this test are still a little "
        "optimistic: the test and the estimate use the same samples.</p>"
    )


def _budget(summary: Summary, _: Found | None) -> str:
    budget, model = summary["budget"], summary["model"]
    starts = [0, *(stage["after_layer"] + 1 for stage in budget["stages"])]
    ends = [start - 1 for start in starts[1:]] + [model["decoder_depth"] - 1]
    tokens = [model["visual_tokens"], *(stage["keep"] for stage in budget["stages"])]
    spans = zip(starts, ends, tokens, strict=True)
    share = 100 / model["visual_tokens"]
    facts = {
        "Nominal": f"{budget['nominal']} of {model['visual_tokens']} tokens, schedule {budget['schedule']}",
        "Mean over layers, leaving": _tokens(budget["mean_tokens_leaving"], share) + "; what published budgets quote",
        "Mean over layers, entering": _tokens(budget["mean_tokens_entering"], share) + "; what is computed",
        "Prefill": _flops(budget["prefill"]),
    }
    table = data_table(
        "Visual tokens that enter each decoder layer",
        ["decoder layers", "visual tokens", "share"],
        (
            [f"{first} to {last}" if last > first else first, count, f"{count * share:.1f} %"]
            for first, last, count in spans
            if last >= first  # a stage before the decoder leaves no layer to all tokens
        ),
    )
    return _facts(facts) + table + compute_figure(summary) + budgets_part(summary)


def _tokens(mean: float, share: float) -> str:
    return f"{mean:.1f} tokens ({mean * share:.1f} %)"


def _flops(prefill: dict[str, int]) -> str:
    pruned, full = prefill["flops_pruned"], prefill["flops_unpruned"]
    counted = f"multiply and add = 2, all FFN matrices, {prefill['text_tokens']} text tokens"
    return f"{pruned / 1e9:.4g} of {full / 1e9:.4g} GFLOP ({100 * pruned / full:.1f} %); {counted}"


def _data(summary: Summary, found: Found | None) -> str:
    labels = sorted(summary["labels"].items(), key=lambda item: -item[1])
    quarantine = summary["quarantine"]
    parts = [data_table("Samples by who labelled them", ["label source", "samples"], labels)]
    parts.append(overrides_part(found))
    if not quarantine:
        return "".join(parts) + "<p>No row of the data was left out.</p>"
    shown = [(short(row["where"]), short(row["reason"])) for row in quarantine[:QUARANTINE_SHOWN]]
    parts.append(f"<p>{_count(len(quarantine), 'row')} of the data left out.</p>")
    table = data_table("Rows left out", ["where", "reason"], shown)
    parts.append(f"<details><summary>Rows left out, with reasons</summary>{table}</details>")
    if len(quarantine) > QUARANTINE_SHOWN:
        rest = len(quarantine) - QUARANTINE_SHOWN
        parts.append(f"<p>The first {QUARANTINE_SHOWN} are listed; {rest} more are in summary.json.</p>")
    return "".join(parts)


def _router(summary: Summary, found: Found | None) -> str:
    facts = summary.get("router")
    if facts is None:
        return "<p>This run is of a version that did not say how it chose the router; the profile names it.</p>"
    shown = (
        (
            row["name"],
            f"{row['min_confidence']:.3f}",
            *(percent(row[key], MISSING) for key in ("agreement", "coverage", "accepted_agreement")),
        )
        for row in facts["candidates"]
    )
    header = ["router", "rejects below", "agreement", "accepted", "agreement of the accepted"]
    compared = _count(facts["compared"], "prompt")
    return (
        f"<p>{esc(router_words(facts))}.</p>"
        + _facts({"Why": f"{facts['chosen']}: {facts['why']}", "Different prompts labelled": facts["prompts"]})
        + data_table(f"Routers against the labels of {compared}, percent; rejected is default", header, shown)
        + comparisons_part(found)
    )


def _cost(summary: Summary, found: Found | None) -> str:
    cost = summary["cost"]
    seconds = cost["seconds"]
    facts = {
        "Candidate evaluations": f"{cost['candidate_evaluations']:,}, holdout included; one is a candidate on a sample",
        "Exhaustive search alone": f"{cost['exhaustive_evaluations']:,} evaluations",
        **_decoder_cost(cost.get("decoder")),
        "Pictures encoded": f"{cost['vision_passes']:,} for {_count(cost['unique_pictures'], 'unique picture')}",
    }
    rows = [
        *((stage, _duration(value)) for stage, value in seconds.items()),
        ("total", _duration(sum(seconds.values()))),
    ]
    times = data_table("Time per stage, last invocation only", ["stage", "time"], rows)
    return costs_part(found) + _facts(facts) + times


def _decoder_cost(cost: dict[str, Any] | None) -> dict[str, str]:
    """What the waterfall does not show; nothing for a run whose ledger has no costs."""
    if not cost or not cost["counted"]:
        return {}
    drafted = cost["drafted"] / (cost["evaluations"] + cost["holdout_evaluations"])
    done, alone = cost["token_layers"], cost["token_layers_alone"]
    return {
        "Tokens through decoder layers": f"{done:,.0f}; {alone:,.0f} for the same answers one at a time",
        "Answers confirmed without a decoding step": f"{percent(drafted)} %",
        "Features read": f"{cost['bytes_read'] / 1e6:,.1f} MB",
    }


def _provenance(summary: Summary, _: Found | None) -> str:
    model = summary["model"]
    facts = {
        "Profile id": summary["profile_id"],
        "Ledger digest": summary["ledger_sha256"],
        "Seed": summary["config"]["seed"],
    }
    facts |= {f"Model {name.replace('_', ' ')}": value for name, value in model.items()}
    datasets = data_table(
        "Data sets",
        ["name", "revision", "split", "samples"],
        ([item.get(key) for key in ("name", "revision", "split", "samples")] for item in summary["datasets"]),
    )
    asked = data_table("What was asked for", ["option", "value"], summary["config"].items())
    environment = data_table("Environment", ["part", "version"], summary["environment"].items())
    return f"{_facts(facts)}{datasets}{environment}<details><summary>What was asked for</summary>{asked}</details>"


def _race(summary: Summary, found: Found | None) -> str:
    return race_part(summary, found)


def _fitted(_: Summary, __: Found | None) -> str:
    """Nothing yet: :func:`.report_fit.fit_parts` fills it with what there is room for."""
    return ""


_SECTIONS: dict[str, tuple[str, Callable[[Summary, Found | None], str]]] = {
    "classes": ("Classes", classes_part),
    "search": ("Search", curves_part),
    "race": ("Race", _race),
    "gallery": ("Samples", _fitted),
    "weights": ("Fusion weights", weights_part),
    "budget": ("Budget", _budget),
    "further": ("Further budgets", _fitted),
    "data": ("Data", _data),
    "router": ("Router", _router),
    "cost": ("Cost", _cost),
    "provenance": ("Provenance", _provenance),
}


def _facts(facts: Mapping[str, object]) -> str:
    pairs: Iterable[str] = (f"<dt>{esc(name)}</dt><dd>{esc(_value(value))}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{"".join(pairs)}</dl>'


def _value(value: object) -> object:
    return MISSING if value is None else value


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


_BODY = Template("""<a class="skip" href="#main">Skip to the verdict</a>
<header><h1>$title</h1><nav aria-label="Sections"><ul>$links</ul></nav></header>
<main id="main" tabindex="-1">
$verdict
$sections
</main>
""")
