"""The report's gallery: questions with their answers, and what every stage kept drawn on the picture."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from claspkit.profiles.budget import Stage
from claspkit.runtime.token_map import TokenMap, TokenView

from .charts import esc
from .gallery import RIGHT, Gallery, Shot
from .gallery_cells import Canvas, cell_paths, svg_number
from .overlay import StageView, view_captions

_LONGEST = 300  # characters of a question or an answer
_LONGEST_FILE = 32

_ALL = 10**12


def gallery_part(gallery: Gallery | None, names: dict[str, str], room: int = _ALL, nominal: int | None = None) -> str:
    """HTML of the gallery.

    Args:
        gallery: None where none was drawn.
        names: class id -> name for people.
        room: bytes that it may take; samples beyond that are counted. The classes take turns.
        nominal: of a further budget.
    """
    if gallery is None:
        return none_yet(nominal)
    missing = "".join(f'<p class="note">Left out: {esc(reason)}.</p>' for reason in gallery.missing)
    if not gallery.shots:
        return missing or none_yet(nominal)
    intents = dict.fromkeys(shot.intent for shot in gallery.shots)
    figures = {intent: [figure(shot) for shot in gallery.shots if shot.intent == intent] for intent in intents}
    shown = _fitting(figures, room - len(_LEGEND) - len(missing.encode()) - 200 * len(figures) - 200)
    parts = [] if nominal else [_LEGEND]
    for number, intent in enumerate(intents):
        shots = [shot for shot in gallery.shots if shot.intent == intent][: shown[intent]]
        right = sum(shot.right for shot in shots)
        head = f"{names.get(intent, intent)}: {right} right, {len(shots) - right} wrong"
        state = "" if number or nominal else " open"
        if shots:
            body = "".join(figures[intent][: shown[intent]])
            parts.append(f"<details{state}><summary>{esc(head)}</summary>{body}</details>")
    if (rest := len(gallery.shots) - sum(shown.values())) > 0:
        missing += f'<p class="note">{rest} more samples were drawn than this page has room for.</p>'
    return "".join(parts) + missing


def none_yet(nominal: int | None = None) -> str:
    """Where no samples are drawn, at the first budget or at a further one: how to have them."""
    budget = "" if nominal is None else f" --budget {nominal}"
    return (
        f'<p class="nothing">No samples are drawn. <code>claspkit report RUN --gallery 2{budget}</code> draws them; it '
        "loads the model.</p>"
    )


def _fitting(figures: Mapping[str, Sequence[str]], room: int) -> dict[str, int]:
    """How many figures of every class there is room for, one of each class at a time."""
    shown = dict.fromkeys(figures, 0)
    for turn in range(max(map(len, figures.values()))):
        for intent, mine in figures.items():
            size = len(mine[turn].encode()) if turn < len(mine) else 0
            if size > room:
                return shown
            shown[intent] += turn < len(mine)
            room -= size
    return shown


_LEGEND = (
    '<p class="note">Holdout samples, right and wrong ones taking turns; of the wrong ones first those that the '
    "unpruned model has right. They are examples, not a rate. The first picture is what the model sees, then what is "
    "left after each stage: of a model that looks at the whole picture and at tiles of it, one drawing of each.</p>"
    '<ul class="legend">'
    '<li><svg viewBox="0 0 1 1" aria-hidden="true"><path class="pivot" d="M.1 .1h.8v.8h-.8z"/></svg>kept as attention '
    "pivot</li>"
    '<li><svg viewBox="0 0 1 1" aria-hidden="true"><path class="completion" d="M.1 .1h.8v.8h-.8z"/></svg>kept as '
    "completion</li>"
    '<li><svg viewBox="0 0 1 1" aria-hidden="true"><path class="gone" d="M0 0h1v1h-1z"/></svg>dropped</li></ul>'
)


def figure(shot: Shot) -> str:
    """HTML of one sample."""
    word = "right" if shot.right else "wrong"
    said = [f"<dt>Pruned</dt><dd>{esc(_short(shot.answer))} {_mark(shot.score)}</dd>"]
    if shot.unpruned is not None and shot.unpruned_score is not None:
        said.append(f"<dt>Unpruned</dt><dd>{esc(_short(shot.unpruned))} {_mark(shot.unpruned_score)}</dd>")
    reference = " / ".join(dict.fromkeys(shot.answers))
    panels = _whole(shot) + "".join(_panel(shot, number, stage) for number, stage in enumerate(shot.stages))
    return (
        f'<figure class="shot {word}"><figcaption><b>{esc(_short(shot.prompt))}</b>'
        f'<dl class="said">{"".join(said)}<dt>Reference</dt><dd>{esc(_short(reference))}</dd></dl>'
        f"<small>{esc(shot.candidate)}, {esc(_layout(shot.tokens))}, picture {esc(_file(shot.image))}</small>"
        "</figcaption>"
        f'<div class="panels">{panels}</div></figure>'
    )


def _layout(tokens: TokenMap) -> str:
    """How the tokens lie, in words."""
    if tokens.plain:
        (view,) = tokens.views
        return f"{view.rows} by {view.columns} tokens"
    views = [f"{view.name} {view.rows} by {view.columns} tokens" for view in tokens.views]
    return ", ".join([*views, *(f"{len(group)} {name}" for name, group in tokens.placeless.items())])


def _mark(score: float) -> str:
    """Whether an answer is right, in a word and a sign, so that no colour is needed."""
    sign, word = ("✓", "right") if score >= RIGHT else ("✗", "wrong")
    part = "" if score in (0.0, 1.0) else f" {100 * score:.0f} %"
    return f'<span class="mark-{word}">{sign} {word}{part}</span>'


def _whole(shot: Shot) -> str:
    """The picture itself; the stages' panels use the same one."""
    name, canvas = f"shot-{shot.intent}-{shot.uid}", _canvas(shot)
    return (
        f'<div><svg role="img" viewBox="{canvas.box}" aria-labelledby="{esc(name)}-t">'
        f'<title id="{esc(name)}-t">The picture of the question: {esc(_short(shot.prompt))}</title>'
        f'<image id="{esc(name)}" width="{svg_number(canvas.width)}" height="{svg_number(canvas.height)}" '
        f'preserveAspectRatio="none" href="data:image/jpeg;base64,{html.escape(shot.jpeg)}"/></svg>'
        f"<small>all {shot.tokens.count} tokens</small></div>"
    )


def _panel(shot: Shot, stage_number: int, stage: StageView) -> str:
    """What one stage kept: the picture once for every view, then the counts."""
    tokens, kept, pivots = shot.tokens, set(stage.kept), set(stage.pivots)
    place = Stage(stage.after_layer, max(len(kept), 1)).place
    counts = f"{len(pivots)} pivots, {len(kept - pivots)} completion"
    told = f"{place}: {len(kept)} of {tokens.count} tokens kept, {counts}"
    lines = view_captions(tokens, stage)
    drawn = []
    for index, view in enumerate(tokens.views):
        name = f"shot-{shot.intent}-{shot.uid}-{stage_number}{f'-{index}' if index else ''}"
        title = told if tokens.plain else f"{told}. {lines[index]}"
        drawn.append(_drawing(shot, view, stage, name, title))
        if not tokens.plain:
            drawn.append(f"<small>{esc(lines[index])}</small>")
    rest = "".join(f"<small>{esc(line)}</small>" for line in lines[len(tokens.views) :])
    return f"<div>{''.join(drawn)}{rest}<small>{esc(place)}: {len(kept)}, {len(pivots)} pivots</small></div>"


def _drawing(shot: Shot, view: TokenView, stage: StageView, name: str, told: str) -> str:
    """The picture with what a stage kept of one view."""
    kept, canvas = view.cells(stage.kept), _canvas(shot)
    title, desc = esc(f"{name}-t"), esc(f"{name}-d")
    return (
        f'<svg role="img" viewBox="{canvas.box}" aria-labelledby="{title} {desc}">'
        f'<title id="{title}">{esc(told)}</title>'
        f'<desc id="{desc}">Kept tokens lie {esc(_where(set(kept), view.rows, view.columns))}.</desc>'
        f'<use href="#{esc(f"shot-{shot.intent}-{shot.uid}")}"/>'
        f"{cell_paths(canvas, shot.size, view, kept, view.cells(stage.pivots))}</svg>"
    )


def _canvas(shot: Shot) -> Canvas:
    return Canvas.of(shot.size, shot.tokens.views[0])


def _where(kept: set[int], rows: int, columns: int) -> str:
    """Shares of the kept tokens in the four quarters of the picture, in words."""
    if not kept:
        return "nowhere"
    names = ("top left", "top right", "bottom left", "bottom right")
    counts = [0, 0, 0, 0]
    for token in kept:
        row, column = divmod(token, columns)
        counts[2 * (2 * row >= rows) + (2 * column >= columns)] += 1
    return ", ".join(f"{100 * count / len(kept):.0f} % {name}" for name, count in zip(names, counts, strict=True))


def _file(name: str) -> str:
    """A file's name on one line of a phone: digests lose their middle."""
    return name if len(name) <= _LONGEST_FILE else f"{name[:14]}…{name[-14:]}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


GALLERY_STYLE = """
.shot{margin:12px 0}.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px}
.panels>div{max-width:260px}.panels svg{width:100%;border:1px solid var(--edge);image-rendering:auto;max-height:520px}
.panels small{display:block}
.shot.wrong{border-left:5px solid var(--s2)}.shot.right{border-left:5px solid var(--good)}
.said{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:0 12px;margin:4px 0}
.said dt{color:var(--soft)}.said dd{margin:0;color:var(--ink);overflow-wrap:anywhere}
.mark-right{color:var(--good);font-weight:600}.mark-wrong{color:var(--s2);font-weight:600}
.gone{fill:var(--page);fill-opacity:.82}
.pivot{fill:#005adc;fill-opacity:.2;stroke:#005adc;stroke-width:.14}
.completion{fill:#d6281e;fill-opacity:.12;stroke:#d6281e;stroke-width:.14;stroke-dasharray:.4 .4;stroke-dashoffset:.2}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;list-style:none;padding:0;margin:8px 0;color:var(--soft)}
.legend svg{width:1.2em;height:1.2em;display:inline-block;vertical-align:-.2em;margin-right:6px;
border:1px solid var(--edge)}
"""
