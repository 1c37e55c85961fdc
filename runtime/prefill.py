"""A prompt on its way through the stages: what is alive, where it stands, and what every stage kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from claspkit.profiles.budget import BEFORE_DECODER
from claspkit.profiles.errors import NotFiniteError, UsageError

from .cosines import Cosines, StageWork, cosines
from .layout import PromptLayout, lay_out
from .plan import PrunePlan
from .segments import Segment, shorten, whole
from .selection import select


@dataclass(frozen=True)
class StageTrace:
    """What one stage kept and why. Indices count a prompt's visual tokens in reading order, over all its pictures.

    Attributes:
        after_layer: the decoder layer whose output was pruned; -1 for a stage before the decoder.
        kept: (B, R) int64, ascending in every row.
        pivot: (B, R) bool: True for attention pivots (kept for their saliency), False for similarity completion
            (kept for standing for others).
        saliency: (B, R), the saliency that was judged.
        real: (B, R) bool, False where a row kept fewer than R.
    """

    after_layer: int
    kept: Tensor
    pivot: Tensor
    saliency: Tensor
    real: Tensor

    def row(self, index: int) -> list[tuple[int, str]]:
        """One prompt's kept tokens as (index, "pivot" or "completion")."""
        columns = (self.kept[index].tolist(), self.pivot[index].tolist(), self.real[index].tolist())
        return [
            (token, "pivot" if pivot else "completion") for token, pivot, real in zip(*columns, strict=True) if real
        ]


@dataclass(frozen=True)
class Announcement:
    """What is known of a prompt before it reaches the decoder.

    Attributes:
        plan: how to prune it; one row per prompt before rows were repeated.
        visual: (B, S) bool, its visual tokens.
        pictures: pictures per row of the plan, None to count runs of visual tokens.
        repeats: rows of the batch per row of the plan: beams, or returned sequences.
        drafts: trailing tokens that are guesses of an answer.
        prefix: tokens that every layer's cache holds before the prompt, the same for all rows.
        copies: how often the batch repeats its first prompts, copy after copy; what is read off them is read once.
        scores: gives (b or B, N) saliency from the vision encoder per row and visual token, once the encoder has run;
            for saliency "cls".
    """

    plan: PrunePlan
    visual: Tensor
    pictures: tuple[int, ...] | None = None
    repeats: int = 1
    drafts: int = 0
    prefix: int = 0
    copies: int = 1
    scores: Callable[[], Tensor | None] | None = None


@dataclass
class Prefill:
    """A prompt's state, kept as long as its cache lives. b are the rows of the plan, B those of the batch.

    Rows that repeat a prompt share its selection: beams may then be exchanged freely.

    Attributes:
        plan: how it is pruned.
        layout: its b rows.
        repeats: B / b.
        prompt: S, tokens as it came.
        keeps: tokens to keep per stage and row.
        similar: cosines of the tokens alive; None once nothing is left to drop.
        names: (b, n), of every token alive its index among the prompt's visual tokens.
        places: (b, n), their places in the current segment; its size where not valid.
        valid: (b, n) bool, False where a row has fewer tokens alive.
        scores: (b, N), saliency from the vision encoder.
        finite: (b,) bool, False once NaN or infinity was met.
        segments: first decoder layer -> what the layers from there on see, of what entered the decoder.
        entrance: what a stage before the decoder made of the prompt.
        trace: what the stages kept.
    """

    plan: PrunePlan
    layout: PromptLayout
    repeats: int
    prompt: int
    keeps: list[list[int]]
    similar: Cosines | None
    names: Tensor
    places: Tensor
    valid: Tensor
    scores: Tensor | None
    finite: Tensor
    segments: dict[int, Segment]
    entrance: Segment | None = None
    trace: list[StageTrace] = field(default_factory=list)

    @classmethod
    def begin(cls, announced: Announcement, embeds: Tensor, attention: Tensor | None) -> Prefill:
        """Read the prompt's layout and the features of its visual tokens off the decoder's inputs.

        Args:
            announced: what is known of it.
            embeds: (B, S, D), decoder inputs.
            attention: (B, prefix + S), 0 for padding; None for none.

        Raises:
            UsageError: rows, padding or text that do not fit.
        """
        plan, repeats, device = announced.plan, announced.repeats, embeds.device
        rows, size = announced.visual.shape
        if rows != len(plan.rows) * repeats or (rows, size) != tuple(embeds.shape[:2]):
            raise UsageError(
                f"the prompt announced has {rows} rows of {size} tokens for {len(plan.rows)} row plans, the decoder "
                f"was given {tuple(embeds.shape[:2])}"
            )
        layout = lay_out(
            announced.visual[::repeats],
            attention if attention is None or attention.ndim != 2 else attention[::repeats, announced.prefix :],
            pictures=announced.pictures,
            drafts=announced.drafts,
            saliency=plan.saliency,
        )
        index, valid = layout.visual.to(device), layout.valid.to(device)
        real = layout.real.to(device).repeat_interleave(repeats, dim=0)
        now = cls(
            plan=plan,
            layout=layout,
            repeats=repeats,
            prompt=size,
            keeps=plan.keeps(layout.visuals, layout.pictures),
            similar=None,
            names=torch.arange(index.shape[1], device=device).expand_as(index),
            places=index,
            valid=valid,
            scores=_scores(announced, device),
            finite=torch.ones(len(plan.rows), dtype=torch.bool, device=device),
            segments={
                0: whole(real, [length for length in layout.lengths for _ in range(repeats)], announced.prefix)
            },
        )
        # What enters the decoder is the hidden state of a stage before it.
        if now.will_drop(0) and (plan.features == "aligned" or plan.stages[0][0] == BEFORE_DECODER):
            now.similar = now._cosines(embeds, 0, now._work(0), announced.copies)
        return now

    def will_drop(self, stage: int) -> bool:
        """Whether this stage or a later one drops anything."""
        return stage < len(self.keeps) and list(self._alive(stage)) != self.keeps[-1]

    def first_layer(self, layer: int) -> int:
        """First layer of the segment that ``layer`` belongs to."""
        return max(first for first in self.segments if first <= layer)

    @property
    def current(self) -> Segment:
        """The segment whose layers are running."""
        return self.segments[max(self.segments)]

    def at_visual(self, values: Tensor) -> Tensor:
        """Pick (b, s) values of the current segment at the visual tokens alive: -> (b, n)."""
        return pad(values, (0, 1)).gather(1, self.places)

    def drop(self, stage: int, after_layer: int, saliency: Tensor, hidden: Tensor | None = None) -> None:
        """Run a stage: select by ``saliency`` (b, n) and open the next segment.

        ``hidden`` (B, s, D) are the hidden states of the current segment, for a plan whose features these are.
        """
        similar = self.similar if hidden is None else self._cosines(hidden, stage, self._work(stage)[:1])
        assert similar is not None
        plan, keeps, segment = self.plan, self.keeps[stage], self.current
        chosen = select(
            saliency,
            similar,
            keeps,
            plan.pivots(keeps),
            valid=self.valid if self._uneven(stage) else None,
            iterations=plan.iterations,
            tie_tolerance=plan.tie_tolerance,
            check=False,
        )
        self.finite = self.finite & chosen.finite
        # Unused slots go to a column of their own: they point at tokens that may have to go.
        slots = chosen.kept.masked_fill(~chosen.real, self.valid.shape[1])
        survives = pad(torch.zeros_like(self.valid), (0, 1)).scatter(1, slots, True)[:, :-1]
        stays = pad(segment.real[:: self.repeats], (0, 1)).scatter(1, self.places, survives)[:, :-1]
        before = segment.counts[:: self.repeats]
        counts = [
            total - alive + keep for total, alive, keep in zip(before, self._alive(stage), keeps, strict=True)
        ]
        following, moved = shorten(
            segment,
            stays.repeat_interleave(self.repeats, dim=0),
            [count for count in counts for _ in range(self.repeats)],
        )
        self.segments[after_layer + 1] = following
        self.names = self.names.gather(1, chosen.kept)
        self.valid = chosen.real
        places = pad(moved[:: self.repeats], (0, 1)).gather(1, self.places.gather(1, chosen.kept))
        self.places = places.masked_fill(~self.valid, following.size)
        self.trace.append(
            StageTrace(after_layer, self.names, chosen.pivot, saliency.gather(1, chosen.kept), chosen.real)
        )
        again = plan.features == "aligned" and self.will_drop(stage + 1)
        self.similar = similar.take(chosen.kept, self._work(stage + 1)) if again else None

    def _cosines(self, states: Tensor, stage: int, work: Sequence[StageWork], copies: int = 1) -> Cosines:
        """Cosines of the visual tokens alive, of (B, s, D) states of the segment, which repeat ``copies`` times."""
        states, ragged = states[:: self.repeats], self._uneven(stage)
        first = len(states) // copies
        states, places, valid = states[:first], self.places[:first], self.valid[:first]
        if ragged:
            states = pad(states, (0, 0, 0, 1))
        states = states.gather(1, places[:, :, None].expand(-1, -1, states.shape[-1]))
        return cosines(states, work, valid if ragged else None, iterations=self.plan.iterations, copies=copies)

    def check_finite(self) -> None:
        """Refuse a selection made from NaN: the only look at the device, once per prompt.

        Raises:
            NotFiniteError: features or attention held NaN or infinity.
        """
        if not bool(self.finite.all()):
            wrong = [index for index, fine in enumerate(self.finite.tolist()) if not fine]
            raise NotFiniteError(
                f"the visual features or the attention of prompts {wrong} of this batch hold NaN or infinity; "
                "nothing can be selected from them. Look at the picture, or run the model in float32 or bfloat16"
            )

    def _uneven(self, stage: int) -> bool:
        """Whether rows enter a stage with different numbers of tokens."""
        return len(set(self._alive(stage))) > 1

    def _alive(self, stage: int) -> Sequence[int]:
        return self.layout.visuals if stage == 0 else self.keeps[stage - 1]

    def _work(self, stage: int) -> list[StageWork]:
        """What the stages from ``stage`` on have before them, for the choice of the cheaper form."""
        return [
            StageWork(max(self._alive(index)), max(self.keeps[index]), min(self.plan.pivots(self.keeps[index])))
            for index in range(stage, len(self.keeps))
        ]


def shortened_inputs(now: Prefill, kwargs: Mapping[str, Any], renumber: bool) -> dict[str, Any]:
    """The decoder's arguments behind a stage before it: from here on the prompt is the shortened one."""
    segment = now.segments[0]
    if segment.prefix:
        raise UsageError("a prompt behind a cached prefix cannot be pruned before the decoder")
    now.entrance = segment
    now.segments[0] = whole(segment.real, segment.counts)
    embeds, order = kwargs["inputs_embeds"], segment.order
    ids = kwargs.get("position_ids")
    if ids is None:
        ids = torch.arange(now.prompt, device=embeds.device)[None]
    ids = ids.expand(*ids.shape[:-2], embeds.shape[0], -1).gather(-1, order.expand(*ids.shape[:-2], -1, -1))
    return {
        **kwargs,
        "inputs_embeds": embeds.gather(1, order[:, :, None].expand(-1, -1, embeds.shape[-1])),
        # Given even where all is real: without it, gaps in position ids would be read as packed sequences.
        "attention_mask": segment.real.long(),
        "position_ids": ids - segment.shift if renumber else ids,
    }


def _scores(announced: Announcement, device: torch.device) -> Tensor | None:
    if announced.plan.saliency != "cls":
        return None
    scores = announced.scores() if announced.scores is not None else None
    if scores is None:
        raise UsageError(
            "saliency 'cls' comes from the vision encoder, which has to run in the same call as the decoder"
        )
    return scores[:: scores.shape[0] // len(announced.plan.rows)].to(device)
