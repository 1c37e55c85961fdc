"""Batches of questions to a stock or pruned model: answers, tokens kept, rows that cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from claspkit.profiles.budget import Stage, tokens_leaving
from claspkit.profiles.errors import BadDataError, NotFiniteError, ResourceError
from claspkit.runtime.inputs import batch_inputs, decode_answers
from claspkit.runtime.models import LoadedModel
from claspkit.runtime.plan import PrunePlan
from claspkit.runtime.pruner import Pruned, prune

from .evaluate_log import Said
from .evaluate_ways import Way
from .images import open_image
from .samples import Sample


class Answerer:
    """Asks one model; greedy decoding, as ``claspkit run`` does."""

    def __init__(self, loaded: LoadedModel, max_new_tokens: int) -> None:
        """Take a model; ``max_new_tokens`` is the length of an answer, at most."""
        self._loaded, self._longest = loaded, max_new_tokens
        self._depth = loaded.family.facts(loaded.model).decoder_depth

    def ask(
        self, samples: Sequence[Sample], root: Path, ways: Sequence[tuple[Way, Sequence[str]]]
    ) -> list[list[Said]]:
        """Answer one batch in several ways.

        A row whose picture the processor refuses is refused alone. Ways that prune the batch alike are asked once.

        Args:
            samples: the rows.
            root: folder that their pictures lie below.
            ways: each with the intents of the rows.

        Returns:
            one list per way, in the order of the rows.

        Raises:
            ResourceError: a picture cannot be read any more, or the device's memory is too small.
        """
        rows: list[Image.Image | str] = [_open(sample, root) for sample in samples]
        inputs = self._inputs(samples, rows)
        usable = [index for index, row in enumerate(rows) if isinstance(row, Image.Image)]
        pictures = [row for row in rows if isinstance(row, Image.Image)]
        prompts = [samples[index].prompt for index in usable]
        asked: dict[PrunePlan | None, list[Said]] = {}
        answers = []
        for way, intents in ways:
            mine = [intents[index] for index in usable]
            plan = None if way.profile is None else PrunePlan.from_profile(way.profile, mine)
            if plan not in asked:
                asked[plan] = self._batch(inputs, pictures, prompts, way, mine) if usable else []
            found = dict(zip(usable, asked[plan], strict=True))
            answers.append([found[i] if i in found else Said(None, refused=str(row)) for i, row in enumerate(rows)])
        return answers

    def _inputs(self, samples: Sequence[Sample], rows: list[Image.Image | str]) -> Any:
        """The batch of all rows whose picture the model takes; the others' pictures become the reason in ``rows``."""
        pictures = [row for row in rows if isinstance(row, Image.Image)]
        if not pictures:
            return None
        prompts = [sample.prompt for row, sample in zip(rows, samples, strict=True) if isinstance(row, Image.Image)]
        try:
            return batch_inputs(self._loaded, pictures, prompts)
        except (BadDataError, ValueError):  # what image processors raise for pictures that they cannot take
            pass
        for index, sample in enumerate(samples):
            picture = rows[index]
            if isinstance(picture, Image.Image):
                try:
                    batch_inputs(self._loaded, [picture], [sample.prompt])
                except (BadDataError, ValueError) as error:
                    rows[index] = f"the model's image processor refuses the picture: {error}"
        if sum(isinstance(row, Image.Image) for row in rows) == len(pictures):
            raise BadDataError(
                f"the rows from {samples[0].source.dataset}:{samples[0].source.index} on cannot be asked as one batch; "
                "give --batch-size 1"
            )
        return self._inputs(samples, rows)

    def _batch(
        self, inputs: Any, pictures: Sequence[Image.Image], prompts: Sequence[str], way: Way, intents: Sequence[str]
    ) -> list[Said]:
        try:
            return self._generate(inputs, way, intents)
        except NotFiniteError:
            if len(prompts) == 1:
                return [Said(None)]
        found = []
        for picture, prompt, intent in zip(pictures, prompts, intents, strict=True):
            alone = batch_inputs(self._loaded, [picture], [prompt])
            found += self._batch(alone, [picture], [prompt], way, [intent])
        return found

    def _generate(self, inputs: Any, way: Way, intents: Sequence[str]) -> list[Said]:
        loaded = self._loaded
        pruning = nullcontext() if way.profile is None else prune(loaded.model, way.profile, intents=intents)
        try:
            with torch.inference_mode(), pruning as pruned:
                generated = loaded.model.generate(
                    **inputs,
                    max_new_tokens=self._longest,
                    do_sample=False,
                    num_beams=1,
                    logits_processor=LogitsProcessorList([_Finite()]),
                )
                tokens = self._tokens(inputs["input_ids"], pruned)
        except torch.OutOfMemoryError as error:
            raise ResourceError(
                f"no memory for a batch of {len(inputs['input_ids'])} ({str(error).splitlines()[0]}); run the same "
                "command with a smaller --batch-size"
            ) from error
        texts = decode_answers(loaded, generated[:, inputs["input_ids"].shape[1] :])
        return [Said(text, mean) for text, mean in zip(texts, tokens, strict=True)]

    def _tokens(self, ids: Tensor, pruned: Pruned | None) -> list[float]:
        """Mean over the decoder's layers of the visual tokens that leave one, per row, as the stages really kept."""
        placeholders = torch.tensor(self._loaded.family.placeholder_ids(self._loaded.model), device=ids.device)
        visual = torch.isin(ids, placeholders).sum(dim=1).tolist()
        traces = () if pruned is None else pruned.last
        kept = [(trace.after_layer, trace.real.sum(dim=1).tolist()) for trace in traces]
        return [
            sum(tokens_leaving([Stage(layer, counts[row]) for layer, counts in kept], count, self._depth)) / self._depth
            for row, count in enumerate(visual)
        ]


def _open(sample: Sample, root: Path) -> Image.Image:
    """The picture, which was whole when the rows were read."""
    try:
        return open_image(sample.image, root, sample.image_sha256)
    except BadDataError as error:
        raise ResourceError(
            f"{error} It changed after the rows were read; run the same command again, which reads them anew"
        ) from None


class _Finite(LogitsProcessor):
    """Stops a ``generate`` that would choose among logits with NaN or plus infinity."""

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if bool((scores.isnan() | scores.isposinf()).any()):
            raise NotFiniteError("the model gave NaN or infinity for an answer")
        return scores
