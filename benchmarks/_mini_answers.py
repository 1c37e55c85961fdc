"""Answers of mini under any plan, also ones that no profile has: other saliency, other features, random tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from claspkit.cache.store import FeatureStore
from claspkit.cache.tensors import to_tensor
from claspkit.calib.samples import Sample
from claspkit.calib.scorers import score_answer
from claspkit.calib.space import Candidate
from claspkit.profiles.canonical import sha256_hex
from claspkit.runtime.fusion import fuse
from claspkit.runtime.inputs import decode_answers
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan, RowPlan
from claspkit.runtime.prefill import StageTrace
from claspkit.runtime.pruner import apply_plan
from claspkit.runtime.replay import inputs_from_grids

BLOCK = 32  # samples that are one left-padded batch
MAX_NEW_TOKENS = 16
RANDOM = "random"
_ATTENTION = ("text", "last")  # saliency that the decoder gives; any other comes from outside

Stages = tuple[tuple[int, int], ...]
Outside = Callable[[Sequence[Sample], int], Tensor]  # samples, N -> saliency (B, N)
Watch = Callable[["Way", Sequence[Sample], Sequence[StageTrace], Sequence[str]], None]


@dataclass(frozen=True)
class Way:
    """One way of pruning.

    Attributes:
        stages: (after_layer, keep) pairs; empty keeps every token.
        layers: vision layers fused.
        weights: their shares.
        rho: share of every stage's tokens that goes to attention pivots.
        saliency: "text" or "last" as of a plan, or the name of one from outside (:attr:`Asker.outside`), by which alone
            every stage then keeps its tokens: "random" is drawn once per sample, by its uid.
        features: as of a plan.
    """

    stages: Stages
    layers: tuple[int, ...]
    weights: tuple[float, ...]
    rho: float = 1.0
    saliency: str = "text"
    features: str = "aligned"

    @classmethod
    def of(cls, candidate: Candidate, stages: Stages) -> Way:
        """What a calibration would run."""
        return cls(stages, candidate.prototype.layers, candidate.prototype.weights, candidate.rho)

    def plan(self, layer: int, rows: int) -> PrunePlan:
        """The plan of a batch whose fused features stand in the stock ``layer``'s place."""
        row = RowPlan((layer,), (1.0,), 1.0 if self.given else self.rho)
        saliency = "cls" if self.given else self.saliency  # announced, as an encoder's would be
        return PrunePlan(self.stages, (row,) * rows, saliency=saliency, features=self.features)

    @property
    def given(self) -> bool:
        """Whether the saliency comes from outside."""
        return self.saliency not in _ATTENTION


def random_scores(samples: Sequence[Sample], tokens: int) -> Tensor:
    """(B, N) float32, uniform; a sample's are its own, whatever the batch."""
    drawn = [np.random.default_rng(int(sha256_hex(sample.uid.encode())[:16], 16)).random(tokens) for sample in samples]
    return torch.tensor(np.array(drawn), dtype=torch.float32)


@dataclass
class Asker:
    """Asks mini, fusing cached vision layers.

    Attributes:
        loaded: a model whose pictures are all one grid.
        store: its vision layers.
        advance: hears of every sample asked in one way.
        watch: is shown what the stages kept of every block in every way, and the answers.
        outside: name -> saliency that is no attention.
    """

    loaded: LoadedModel
    store: FeatureStore
    advance: Callable[[int], None] = field(default=lambda _: None)
    watch: Watch = field(default=lambda *_: None)
    outside: Mapping[str, Outside] = field(default_factory=lambda: {RANDOM: random_scores})

    def scores(self, samples: Sequence[Sample], ways: Sequence[Way]) -> dict[Way, list[float]]:
        """Score every way on the samples, (samples,) each, in blocks; a way given twice is asked once."""
        found: dict[Way, list[float]] = {way: [] for way in ways}
        for start in range(0, len(samples), BLOCK):
            block = samples[start : start + BLOCK]
            for way, answers in self.answers(block, tuple(found)).items():
                found[way] += [score_answer(sample, said) for sample, said in zip(block, answers, strict=True)]
        return found

    def answers(self, block: Sequence[Sample], ways: Sequence[Way]) -> dict[Way, list[str]]:
        """Ask one block in every way; its vision layers are read once, and fused once per set of weights."""
        loaded, model = self.loaded, self.loaded.model
        layers = sorted({layer for way in ways for layer in way.layers})
        records = [self.store.read(sample.image_sha256, layers) for sample in block]
        states = to_tensor(np.stack(records, axis=1), self.store.key.dtype).to(model.device, dtype=model.dtype)
        inputs = inputs_from_grids(loaded, [()] * len(block), [sample.prompt for sample in block])
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        visual = torch.isin(ids, torch.tensor(loaded.family.placeholder_ids(model), device=ids.device))
        embeds: dict[tuple[tuple[int, ...], tuple[float, ...]], Tensor] = {}
        found = {}
        for way in ways:
            fused = way.layers, way.weights
            if fused not in embeds:
                embeds[fused] = self._embed(states[[layers.index(layer) for layer in way.layers]], way, ids, visual)
            plan = way.plan(loaded.spec.default_layer, len(block))
            scores = None
            if way.given:
                scores = self.outside[way.saliency](block, loaded.spec.visual_tokens).to(model.device)
            with torch.inference_mode(), apply_plan(model, loaded.family, plan) as stages:
                stages.expect(visual, scores=scores)
                said = model.generate(
                    inputs_embeds=embeds[fused],
                    attention_mask=mask,
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    num_beams=1,
                )
            found[way] = decode_answers(loaded, said)
            self.watch(way, block, stages.last, found[way])
            self.advance(len(block))
        return found

    def _embed(self, states: Tensor, way: Way, ids: Tensor, visual: Tensor) -> Tensor:
        """Decoder inputs (B, S, d) with (L, B, N, D) states fused in the pictures' places."""
        model = self.loaded.model
        with torch.inference_mode():
            shares = torch.tensor(way.weights, dtype=torch.float64).expand(len(ids), -1)
            tokens = self.loaded.family.project(model, fuse(states, shares))
            words = model.get_input_embeddings()(ids)
            return words.masked_scatter(visual[:, :, None], tokens.to(words.dtype))
