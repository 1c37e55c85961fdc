"""The whole recipe in one command: draw, train the tower, then the decoder, then both, measure, write.

    python -m claspkit.mini.train --out mini/model --seed 0 --device auto
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from .align import AlignmentPlan, align_with_words
from .build import build_model, build_processor
from .card import CardFacts, write_card
from .corpus import draw_pictures, load_or_draw
from .evaluate import mean_accuracy, packed_accuracy
from .finetune import BINDING_MIX, FINISHING_MIX, JOINT_MIX, MIX, AnswerPlan, train_answers
from .packing import QuestionPacker
from .pretrain import pretrain_tower
from .samples import HELD_OUT_SEED, TRAINING_SEEDS, VALIDATION_SEED
from .store import MODEL_DIR, save_model

Plan = AlignmentPlan | AnswerPlan


def _plans() -> dict[str, Plan]:
    return {
        "alignment": AlignmentPlan(200, rate=3e-3, tower_rate=0.0),
        "answers": AnswerPlan(400, 500, rate=1e-3, tower_rate=0.0, floor=0.4, mix=MIX),
        "binding": AnswerPlan(300, 700, rate=1.2e-3, tower_rate=0.0, floor=0.3, mix=BINDING_MIX),
        "mixing": AnswerPlan(100, 500, rate=1e-3, tower_rate=3e-4, floor=0.0, mix=JOINT_MIX),
        "placing": AnswerPlan(200, 400, rate=1e-3, tower_rate=4e-4, floor=0.0, mix=JOINT_MIX),
        "sharpening": AlignmentPlan(200, rate=1e-3, tower_rate=6e-4),
        "locating": AnswerPlan(100, 300, rate=1e-3, tower_rate=3e-4, floor=0.0, mix=FINISHING_MIX),
        "counting": AlignmentPlan(280, rate=1e-3, tower_rate=8e-4),
        "finishing": AnswerPlan(200, 240, rate=1e-3, tower_rate=2e-4, floor=0.0, mix=FINISHING_MIX),
    }


@dataclass(frozen=True)
class Recipe:
    """The sizes and peak rates of all phases; the defaults are what the shipped weights were made with."""

    pictures: int = 24_000
    batch: int = 32
    tower_steps: int = 2600
    tower_rate: float = 1e-3
    plans: dict[str, Plan] = field(default_factory=_plans)
    validation_pictures: int = 300
    held_out_pictures: int = 2000
    random_keep: int = 16


class _Run:
    """One run of the recipe: its data, its model, and the checkpoint folder that lets it go on after a stop."""

    def __init__(
        self, recipe: Recipe, seed: int, device: torch.device, checkpoints: Path, compiled: bool
    ) -> None:
        if seed not in TRAINING_SEEDS:
            raise ValueError(f"--seed must be one of {TRAINING_SEEDS}: other seeds' pictures are for measuring")
        self.recipe, self.seed, self.device = recipe, seed, device
        self.checkpoints, self.compiled = checkpoints, compiled
        checkpoints.mkdir(parents=True, exist_ok=True)
        self.processor: LlavaProcessor = build_processor()
        self.model: LlavaForConditionalGeneration = build_model(self.processor.tokenizer, seed)
        # Measured on two cores in bfloat16: backwards, the fused form takes twice as long at this size.
        self.model.model.vision_tower.set_attn_implementation("eager")
        self.packer = QuestionPacker(self.processor.tokenizer)
        self.pictures, self.labels = load_or_draw(checkpoints, seed, recipe.pictures)
        self.validation = load_or_draw(checkpoints, VALIDATION_SEED, recipe.validation_pictures, labels=False)[0]
        self.seconds: dict[str, float] = {}

    def phase(self, name: str, work: Callable[[], None]) -> None:
        """Do ``work`` on the model and keep its weights in a checkpoint."""
        if name in self.seconds:
            return
        started = time.monotonic()
        work()
        self.seconds[name] = round(time.monotonic() - started)
        self._save(self._file(name))

    def resume(self, names: Sequence[str]) -> None:
        """Go on after the last of the phases ``names`` that an earlier run finished, if any."""
        for name in reversed(names):
            if self._file(name).exists():
                self.model.load_state_dict(load_file(self._file(name)))
                with safe_open(self._file(name), framework="pt") as opened:
                    self.seconds = json.loads(opened.metadata()["seconds"])
                log(f"going on after {name}")
                return

    def _save(self, file: Path) -> None:
        half_done = file.with_suffix(".part")
        weights = {key: value.cpu().contiguous() for key, value in self.model.state_dict().items()}
        save_file(weights, half_done, {"seconds": json.dumps(self.seconds)})
        half_done.rename(file)

    def _file(self, name: str) -> Path:
        return self.checkpoints / f"{name}-seed{self.seed}.safetensors"

    def tower(self) -> None:
        """First phase."""
        pretrain_tower(
            self.model.model.vision_tower,
            self.pictures,
            self.labels,
            steps=self.recipe.tower_steps,
            batch=self.recipe.batch,
            rate=self.recipe.tower_rate,
            seed=self.seed,
            device=self.device,
            log=log,
        )

    def follow(self, plan: Plan, seed: int) -> None:
        """Each of the phases after the tower's own."""
        if isinstance(plan, AlignmentPlan):
            align_with_words(
                self.model,
                self.processor.tokenizer,
                self.pictures,
                self.labels,
                picture_seed=self.seed,
                plan=plan,
                batch=self.recipe.batch,
                seed=seed,
                device=self.device,
                log=log,
            )
            return
        train_answers(
            self.model,
            self.packer,
            self.pictures,
            self.labels,
            picture_seed=self.seed,
            plan=plan,
            batch=self.recipe.batch,
            seed=seed,
            device=self.device,
            compiled=self.compiled,
            check=self.check,
            log=log,
        )

    def check(self) -> str:
        """Keep the weights of a phase under way, for looking at, and return its accuracy so far."""
        self._save(self.checkpoints / f"under-way-seed{self.seed}.safetensors")
        return _shown(self.measure(self.validation, VALIDATION_SEED))

    def measure(self, pictures: np.ndarray, seed: int, random_keep: int | None = None) -> dict[str, float]:
        """Accuracy per intent on uint8 pictures (count, 96, 96, 3) of ``seed``."""
        return packed_accuracy(
            self.model, self.packer, pictures, picture_seed=seed, device=self.device, random_keep=random_keep
        )


def train(
    recipe: Recipe,
    out: Path,
    seed: int,
    device: torch.device,
    checkpoints: Path,
    *,
    compiled: bool = False,
    machine: str = "not stated",
    note: str = "",
) -> None:
    """Run the recipe and write the model folder with its card to ``out``; ``machine`` and ``note`` go into the card.

    Finished phases found in ``checkpoints`` are not repeated. Raises ``ValueError`` where ``seed`` is not a
    training seed.
    """
    run = _Run(recipe, seed, device, checkpoints, compiled)
    run.resume(["tower", *recipe.plans])
    run.phase("tower", run.tower)
    for number, (name, plan) in enumerate(recipe.plans.items()):
        run.phase(name, partial(run.follow, plan, seed + 7 * number))
    held_out = draw_pictures(HELD_OUT_SEED, recipe.held_out_pictures)
    with torch.compiler.set_stance("force_eager"):
        scores = run.measure(held_out, HELD_OUT_SEED)
        pruned = run.measure(held_out, HELD_OUT_SEED, recipe.random_keep)
    log("held out: " + _shown(scores))
    log(f"held out, {recipe.random_keep} random tokens: " + _shown(pruned))
    save_model(out, run.model, run.processor)
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    facts = CardFacts(
        accuracy=scores,
        pruned_accuracy=pruned,
        random_keep=recipe.random_keep,
        held_out_pictures=recipe.held_out_pictures,
        training_pictures=recipe.pictures,
        parameters=parameters,
        command=f"python -m claspkit.mini.train --out mini/model --seed {seed} --device {device.type}",
        machine=machine,
        phase_seconds=run.seconds,
        note=note,
    )
    write_card(out, facts)


def log(line: str) -> None:
    """Print one line at once, so that a log file can be followed."""
    print(line, flush=True)


def _shown(scores: dict[str, float]) -> str:
    return f"mean {mean_accuracy(scores):.3f}: " + " ".join(f"{name} {score:.3f}" for name, score in scores.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m claspkit.mini.train", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=MODEL_DIR, help="the model folder to write")
    parser.add_argument("--seed", type=int, default=0, help="0 to 999")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--checkpoints", type=Path, default=Path("mini-checkpoints"), help="pictures and phases")
    parser.add_argument("--machine", default="not stated", help="what the card says about the machine")
    parser.add_argument("--note", default="", help="what else the card shall say about this run")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=shutil.which("g++") is not None,
        help="compile the layers: by default where a C++ compiler is found",
    )
    chosen = parser.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    name = found if chosen.device == "auto" else chosen.device
    train(
        Recipe(),
        chosen.out,
        chosen.seed,
        torch.device(name),
        chosen.checkpoints,
        compiled=chosen.compile,
        machine=chosen.machine,
        note=chosen.note,
    )


if __name__ == "__main__":
    main()
