"""Scores candidates on samples from cached vision layers: fuse, prune, answer, score.

Sample-major: one read of a block's layers serves all candidates. They are fused for all prototypes in one product; the
text that all prompts begin with has gone through the decoder before; and the splits of one prototype share the layers
before the first stage and one Gram matrix. An answer that was guessed right is confirmed in the prompt's own pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from claspkit.cache.store import FeatureStore
from claspkit.profiles.budget import Stage, tokens_entering
from claspkit.profiles.cost import layer_flops
from claspkit.runtime.drafts import draft_tokens
from claspkit.runtime.greedy import Answers
from claspkit.runtime.inputs import decode_answers
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.work import Work, work_alone

from .feeding import Feed, FusedBlock
from .ledger import Cost
from .samples import Sample
from .scorers import score_answer
from .space import Candidate


@dataclass(frozen=True)
class BlockResult:
    """What a candidate did on a block: one answer and one score per sample, and its share of the block's cost."""

    candidate: Candidate | None
    answers: tuple[str, ...]
    scores: tuple[float, ...]
    cost: Cost


class Evaluator:
    """Runs a model's decoder on cached features.

    Args:
        loaded: the model.
        store: its vision layers, one record per picture.
        stages: the pruning schedule of the candidates that bring no kept tokens of their own; its layers are
            everybody's.
        max_new_tokens: length of an answer, at most.
    """

    def __init__(self, loaded: LoadedModel, store: FeatureStore, stages: Sequence[Stage], max_new_tokens: int) -> None:
        self._loaded = loaded
        self._facts = loaded.family.facts(loaded.model)
        self._feed = Feed(loaded, store)
        self._stages = tuple((stage.after_layer, stage.keep) for stage in stages)
        self._max_new_tokens = max_new_tokens

    def evaluate(
        self, samples: Sequence[Sample], candidates: Sequence[Candidate], guesses: Sequence[str] = ()
    ) -> Iterator[list[BlockResult]]:
        """Score ``candidates`` on one block of samples; yields the outcomes prototype by prototype.

        The block is one left-padded batch, so an outcome depends on the block's make-up, never on what else was
        evaluated before it.

        Args:
            samples: the block.
            candidates: one prototype's next to each other.
            guesses: what the answers may be, one per sample; () to guess the reference answers for the first prototype,
                and what its first candidate answered for the others. They decide how fast an answer is found, and not
                which.
        """
        before = self._feed.bytes_read
        prototypes = list(dict.fromkeys(candidate.prototype for candidate in candidates))
        blocks = self._feed.read(samples, [(prototype.layers, prototype.weights) for prototype in prototypes])
        read = (self._feed.bytes_read - before) / len(candidates)
        drafts = draft_tokens(self._loaded, guesses or [sample.answers[0] for sample in samples])
        guessed = bool(guesses)
        for (_, group), block in zip(groupby(candidates, key=lambda c: c.prototype), blocks, strict=True):
            asked = list(group)
            plans = [self._plan(self._stages, each.rho, len(samples), each.keeps) for each in asked]
            found = block.ask(plans, self._max_new_tokens, drafts)
            results = [
                self._result(samples, candidate, block, plan, answers, read)
                for candidate, plan, answers in zip(asked, plans, found, strict=True)
            ]
            if not guessed:
                drafts, guessed = draft_tokens(self._loaded, results[0].answers), True
            yield results

    def unpruned(self, samples: Sequence[Sample]) -> BlockResult:
        """Score the stock model: its own layer, every visual token."""
        before = self._feed.bytes_read
        (block,) = self._feed.read(samples, [((self._loaded.spec.default_layer,), (1.0,))])
        plan = self._plan((), 1.0, len(samples))
        drafts = draft_tokens(self._loaded, [sample.answers[0] for sample in samples])
        (answers,) = block.ask([plan], self._max_new_tokens, drafts)
        return self._result(samples, None, block, plan, answers, self._feed.bytes_read - before)

    def _plan(
        self, stages: tuple[tuple[int, int], ...], rho: float, rows: int, keeps: tuple[int, ...] | None = None
    ) -> PrunePlan:
        """Rows that read the stock layer: what stands there is fused already."""
        row = RowPlan((self._facts.default_layer,), (1.0,), rho, keeps)
        return PrunePlan(stages, (row,) * rows, scaling=self._facts.scaling, visual_tokens=self._facts.visual_tokens)

    def _result(
        self,
        samples: Sequence[Sample],
        candidate: Candidate | None,
        block: FusedBlock,
        plan: PrunePlan,
        found: Answers,
        read: float,
    ) -> BlockResult:
        answers = decode_answers(self._loaded, found.ids)
        scores = [score_answer(sample, answer) for sample, answer in zip(samples, answers, strict=True)]
        alone = self._alone(block, plan, found.lengths)
        cost = Cost(
            flops=self._flops(found.work),
            flops_alone=self._flops(alone),
            token_layers=found.work.token_layers,
            token_layers_alone=alone.token_layers,
            bytes_read=read,
            drafted=sum(found.drafted),
        )
        return BlockResult(candidate, tuple(answers), tuple(scores), cost)

    def _alone(self, block: FusedBlock, plan: PrunePlan, lengths: Sequence[int]) -> Work:
        """What the same answers take one prompt at a time, with nothing shared."""
        text, visual, pictures = block.sizes
        keeps = plan.keeps(visual, pictures)
        total = Work()
        for row, new in enumerate(lengths):
            stages = [
                Stage(layer, keep[row]) for (layer, _), keep in zip(plan.stages, keeps, strict=True) if keep[row]
            ]
            part = work_alone(tokens_entering(stages, visual[row], self._facts.decoder_depth), text[row], new)
            total.token_layers += part.token_layers
            total.pairs += part.pairs
        return total

    def _flops(self, work: Work) -> float:
        facts = self._facts
        return layer_flops(
            work.token_layers,
            work.pairs,
            facts.decoder_width,
            facts.ffn_width,
            facts.heads,
            facts.kv_heads,
            facts.head_width,
        )
