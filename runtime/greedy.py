"""Greedy answers, with drafts: an answer that was guessed right costs no step of its own.

One pass over prompt and draft shows what greedy decoding would say at every place of the draft, up to the first place
where it says something else (teacher forcing). From there on it goes step by step, as ``generate`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from claspkit.profiles.errors import NotFiniteError

from .decoder_inputs import DecoderInputs
from .families import Family
from .gram import repeat_rows
from .guards import select_rows
from .plan import PrunePlan
from .pruner import apply_plan
from .shared_start import share_start
from .work import Work, count_work

LONGEST_DRAFT = 16
"""Tokens of a draft that are looked at: every one has logits over the whole vocabulary, in every row."""

_PLAIN: dict[str, tuple[Any, ...]] = {
    # What generate() may be configured to do to logits, and the values that do nothing.
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None, []),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None, {}),
    "exponential_decay_length_penalty": (None,),
    "guidance_scale": (None, 1.0),
    "watermarking_config": (None,),
    "stop_strings": (None, []),
    "prefill_chunk_size": (None,),
}


_ODD = -1  # in the place of a token: the logits there are not finite


@dataclass(frozen=True)
class Answers:
    """What a batch answered.

    Attributes:
        ids: (B, T) int64, new tokens, the end token among them; filled up on the right as ``generate`` does.
        lengths: tokens of every row that are no fill.
        drafted: per row, whether the draft was the whole answer.
        work: what the decoder computed for all of them.
    """

    ids: Tensor
    lengths: tuple[int, ...]
    drafted: tuple[bool, ...]
    work: Work

    def split(self, copies: int) -> list[Answers]:
        """One object per copy, each with an equal share of the work."""
        rows = len(self.lengths) // copies
        parts = [slice(start, start + rows) for start in range(0, len(self.lengths), rows)]
        share = Work(self.work.token_layers / copies, self.work.pairs / copies)
        return [Answers(self.ids[part], self.lengths[part], self.drafted[part], share) for part in parts]


def is_plainly_greedy(model: Any) -> bool:
    """Whether ``generate`` with ``do_sample=False`` takes the largest logit at every step and does nothing else."""
    config = model.generation_config
    return all(getattr(config, name, None) in values for name, values in _PLAIN.items())


def end_tokens(model: Any) -> tuple[int, ...]:
    """Ids that end an answer, the usual one first; () where only its length does."""
    ends = model.generation_config.eos_token_id
    return tuple(ends) if isinstance(ends, list) else () if ends is None else (ends,)


def answer(
    model: Any,
    family: Family,
    inputs: DecoderInputs,
    plan: PrunePlan,
    max_new_tokens: int,
    *,
    copies: int = 1,
    drafts: Sequence[Sequence[int]] = (),
) -> Answers:
    """Answer prompts greedily under a plan, each of them in several ways if wanted.

    Args:
        model: a model for which :func:`is_plainly_greedy` holds.
        family: its family.
        inputs: B prompts, as the plan's fusion makes them.
        plan: one row per copy and prompt, (copies * B), copy after copy, each reading the stock layer alone.
        max_new_tokens: length of an answer, at most, at least 1.
        copies: how often every prompt is asked.
        drafts: per prompt a guess of the answer, end token included; () for none at all. What stands behind an end
            token, or beyond the first :data:`LONGEST_DRAFT`, is left aside.

    Returns:
        copies * B answers, copy after copy.

    Raises:
        NotFiniteError: NaN or infinity where a stage selects, or in logits that an answer is read from. Logits that no
            answer depends on, behind a wrong guess or an end, may be anything.
    """
    with torch.inference_mode(), ExitStack() as hooks:
        last = plan.stages[0][0] if plan.stages else 0
        hooks.enter_context(share_start(model, family, last, copies, inputs.cached))
        surgery = hooks.enter_context(apply_plan(model, family, plan))
        decoding = _Decoding(model, family, inputs, last, copies, max_new_tokens, drafts)
        surgery.expect(
            repeat_rows(pad(inputs.visual, (0, decoding.fed)), copies),
            pictures=inputs.pictures * copies,
            drafts=decoding.fed,
            prefix=inputs.cached,
            copies=copies,
        )
        work = hooks.enter_context(count_work(family.decoder_layers(model)))
        decoding.begin()
        while decoding.goes_on:
            decoding.step()
        return Answers(decoding.answers(), decoding.lengths, decoding.drafted, work)


class _Decoding:
    """The state of one batch: rows are copies * B, copy after copy."""

    def __init__(
        self,
        model: Any,
        family: Family,
        inputs: DecoderInputs,
        last: int,
        copies: int,
        max_new_tokens: int,
        drafts: Sequence[Sequence[int]],
    ) -> None:
        self._model, self._decoder, self._inputs = model, family.decoder(model), inputs
        self._copies, self._most = copies, max_new_tokens
        self._ends = set(end_tokens(model))
        self._drafts = [self._cut(draft) for draft in drafts] or [[] for _ in inputs.mask]
        self.fed = max(0, *(len(draft) - 1 for draft in self._drafts))  # the last token is only compared
        self._cache = self._prefilled(last)
        self._said: list[list[int]] = []
        self._rows: list[int] = []  # of _said, that are still carried along
        self.drafted: tuple[bool, ...] = ()
        self._mask = torch.empty(0)

    def _prefilled(self, last: int) -> Any:
        """A cache that holds the prefix for every row, and for one copy's rows in the layers that copies share."""
        from transformers import DynamicCache

        cache = DynamicCache()
        rows = len(self._inputs.mask)
        for number, (keys, values) in enumerate(self._inputs.prefix):
            shared = rows if number <= last else rows * self._copies
            cache.update(keys.expand(shared, -1, -1, -1), values.expand(shared, -1, -1, -1), number)
        return cache

    def _cut(self, draft: Sequence[int]) -> list[int]:
        """A draft as far as it is looked at."""
        end = next((place + 1 for place, token in enumerate(draft) if token in self._ends), len(draft))
        return list(draft[: min(end, self._most, LONGEST_DRAFT)])

    def begin(self) -> None:
        """The first pass: prompts, and behind them the drafts."""
        inputs, copies, fed = self._inputs, self._copies, self.fed
        device = inputs.mask.device
        fills = [[*draft[:fed], *[0] * (fed - len(draft))] for draft in self._drafts]
        tokens = torch.tensor(fills, device=device).long().view(len(fills), fed)
        embeds = torch.cat((inputs.embeds, self._embed(tokens).to(inputs.embeds.dtype)), dim=1)
        ahead = torch.arange(1, fed + 1, device=device)
        positions = torch.cat((inputs.positions, inputs.positions[..., -1:] + ahead), dim=-1)
        mask = pad(inputs.mask, (inputs.cached, fed), value=1)
        logits = self._pass(
            repeat_rows(embeds, copies),
            repeat_rows(mask, copies),
            torch.cat([positions] * copies, dim=-2),
            keep=fed + 1,
        )
        self._accept(_largest(logits), self._drafts * copies)
        # Of a draft, later steps see what was accepted.
        kept = torch.tensor(self.lengths, device=device) - 1
        seen = torch.arange(fed, device=device) < kept[:, None]
        prompt = repeat_rows(mask[:, : mask.shape[1] - fed], copies)
        self._mask = torch.cat((prompt, seen.to(mask.dtype)), dim=1)
        self._after = torch.cat([inputs.positions[..., -1:]] * copies, dim=-2)
        self._rows = list(range(len(self._said)))

    def _accept(self, found: Sequence[Sequence[int]], drafts: Sequence[Sequence[int]]) -> None:
        """Take every row's draft as far as it is what greedy decoding says, and its next token behind that."""
        whole: list[bool] = []
        for row, draft in zip(found, drafts, strict=True):
            right = next((place for place, token in enumerate(draft) if row[place] != token), len(draft))
            said = list(draft[:right])
            ended = bool(said) and (said[-1] in self._ends or len(said) == self._most)
            whole.append(ended)
            if not ended and right < len(row):
                said.append(row[right])
            self._said.append(said)
        self.drafted = tuple(whole)
        self._check_finite()

    @property
    def goes_on(self) -> bool:
        """Whether some row has more to say."""
        return any(not self._over(said) for said in self._said)

    def step(self) -> None:
        """One token more for every row that goes on; others are carried along while they are the smaller part."""
        device = self._mask.device
        going = [place for place, row in enumerate(self._rows) if not self._over(self._said[row])]
        if 2 * len(going) <= len(self._rows):
            self._drop_rows(torch.tensor(going, device=device))
        carried = [self._said[row] for row in self._rows]
        tokens = torch.tensor([said[-1:] for said in carried], device=device)
        ahead = torch.tensor([[len(said)] for said in carried], device=device)
        self._mask = pad(self._mask, (0, 1), value=1)
        logits = self._pass(self._embed(tokens), self._mask, self._after + ahead, keep=1)
        for said, (token,) in zip(carried, _largest(logits), strict=True):
            if not self._over(said):
                said.append(token)
        self._check_finite()

    def _check_finite(self) -> None:
        """Refuse answers whose newest token was read from logits that are not finite."""
        rows = len(self._inputs.mask)
        odd = sorted({number % rows for number, said in enumerate(self._said) if said[-1] == _ODD})
        if odd:
            raise NotFiniteError(
                f"the model's logits for prompts {odd} of this batch hold NaN or infinity; run it in float32 or "
                "bfloat16"
            )

    def _drop_rows(self, going: Tensor) -> None:
        """Keep the rows at these places alone."""
        select_rows(self._cache, going)
        self._mask = self._mask[going]
        self._after = self._after.index_select(-2, going)
        self._rows = [self._rows[place] for place in going.tolist()]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens said so far."""
        return tuple(len(said) for said in self._said)

    def answers(self) -> Tensor:
        """Everything said, in one rectangle."""
        config = self._model.generation_config
        fill = config.pad_token_id if config.pad_token_id is not None else next(iter(self._ends), 0)
        width = max(self.lengths)
        rows = [[*said, *[fill] * (width - len(said))] for said in self._said]
        return torch.tensor(rows, device=self._mask.device)

    def _over(self, said: Sequence[int]) -> bool:
        return len(said) >= self._most or said[-1] in self._ends

    def _embed(self, tokens: Tensor) -> Tensor:
        made: Tensor = self._model.get_input_embeddings()(tokens)
        return made

    def _pass(self, embeds: Tensor, mask: Tensor, positions: Tensor, keep: int) -> Tensor:
        """Logits (rows, keep, V) of the last places."""
        out = self._decoder(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = self._model.get_output_embeddings()(out.last_hidden_state[:, -keep:])
        return logits


def _largest(logits: Tensor) -> list[list[int]]:
    """The token of the largest logit per place, (rows, places, V) -> rows of places; _ODD where that is not finite.

    Minus infinity beside it is no fault: a model may forbid a token by it.
    """
    top, token = logits.max(dim=-1)
    found: list[list[int]] = torch.where(top.isfinite(), token, _ODD).tolist()
    return found
