"""The model card: what the model is, how it was made and what it scores, written by the recipe that measured it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .build import PROMPT
from .samples import CALIBRATION_SEED, HELD_OUT_SEED, TRAINING_SEEDS, VALIDATION_SEED

CURVES_START: Final = "<!-- rho-curves -->"
CURVES_END: Final = "<!-- /rho-curves -->"

_FAMILIES: Final[dict[str, str]] = {
    "object": "What is the red object?",
    "attribute": "What colour is the star?",
    "text": "What does the sign say?",
    "scene": "What kind of place is this?",
    "spatial": "Which side of the picture is the star on?",
    "counting": "How many stars are there?",
    "action": "What is the person doing?",
    "intention": "What is the tool used for?",
    "default": "Is there a star in the picture?",
}


@dataclass(frozen=True)
class CardFacts:
    """Everything the card states that was measured or chosen; accuracies are shares of one, per intent.

    ``note`` is for what the command alone does not tell, such as a run that was stopped and changed on its way.
    """

    accuracy: dict[str, float]
    pruned_accuracy: dict[str, float]
    random_keep: int
    held_out_pictures: int
    training_pictures: int
    parameters: int
    command: str
    machine: str
    phase_seconds: dict[str, float]
    note: str = ""


def write_card(folder: Path, facts: CardFacts) -> None:
    """Write ``README.md`` into ``folder``, keeping the curves between the marks of a card that is already there."""
    path = folder / "README.md"
    curves = curves_of(path.read_text(encoding="utf-8")) if path.exists() else ""
    path.write_text(render_card(facts, curves), encoding="utf-8")


def curves_of(card: str) -> str:
    """Return what stands between the curve marks of ``card``, or nothing where the marks are missing."""
    _, start, rest = card.partition(CURVES_START)
    inside, end, _ = rest.partition(CURVES_END)
    return inside.strip() if start and end else ""


def render_card(facts: CardFacts, curves: str = "") -> str:
    """Return the card as Markdown with its YAML head; ``curves`` goes between the curve marks."""
    count = len(facts.accuracy)
    mean, pruned_mean = (sum(scores.values()) / count for scores in (facts.accuracy, facts.pruned_accuracy))
    rows = [
        f"| {intent} | {_FAMILIES[intent]} | {facts.accuracy[intent]:.3f} | {facts.pruned_accuracy[intent]:.3f} |"
        for intent in facts.accuracy
    ]
    phases = ", ".join(f"{name} {seconds / 60:.1f} min" for name, seconds in facts.phase_seconds.items())
    total = sum(facts.phase_seconds.values()) / 60
    lines = [
        "---",
        "license: apache-2.0",
        "language: en",
        "library_name: transformers",
        "pipeline_tag: image-text-to-text",
        "tags:",
        "- llava",
        "- synthetic",
        "- visual-token-pruning",
        "---",
        "",
        "# claspkit mini",
        "",
        f"A LLaVA of {facts.parameters / 1e6:.1f} million parameters (CLIP tower, two-layer projector, Llama decoder, "
        "eight blocks each) in the standard folder form. A 96 x 96 picture becomes 144 visual tokens. It answers "
        "nine families of questions, one per intent, about pictures that `claspkit.mini` draws, and knows nothing "
        "else: it is there so that calibration and its tests run without a download, on answers that really depend "
        "on the visual tokens.",
        "",
        "The prompt is LLaVA-1.5's, decoding is greedy:",
        "",
        "```text",
        PROMPT.format(question="What is the red object?"),
        "```",
        "",
        "## Held-out accuracy",
        "",
        f"Share of exactly right answers on {facts.held_out_pictures:,} pictures of seed {HELD_OUT_SEED}, one "
        f"question of each intent per picture, with all 144 visual tokens and with {facts.random_keep} of them kept "
        "at random before the decoder.",
        "",
        f"| intent | for example | all tokens | {facts.random_keep} random tokens |",
        "| --- | --- | --- | --- |",
        *rows,
        f"| **mean** | | **{mean:.3f}** | **{pruned_mean:.3f}** |",
        "",
        "Accuracy per intent over the split ratio, written by the benchmark:",
        "",
        CURVES_START,
        *([curves] if curves else []),
        CURVES_END,
        "",
        "## How it was made",
        "",
        "```sh",
        facts.command,
        "```",
        "",
        f"Machine: {facts.machine}. Training time: {total:.0f} minutes ({phases}), the drawing of "
        f"{facts.training_pictures:,} pictures not counted.",
        "",
        "The tower is first trained to name what covers each patch; its projection is then drawn towards the words "
        "for that and its place; then the decoder learns to answer before the frozen tower with 24 questions per "
        "picture; last, both are trained together. Everything is drawn by the package itself; no outside data or "
        "weights were used.",
        *(["", facts.note] if facts.note else []),
        "",
        f"Seeds of pictures: training {TRAINING_SEEDS.start} to {TRAINING_SEEDS.stop - 1} (the recipe's `--seed`), "
        f"watched while training {VALIDATION_SEED}, accuracy above {HELD_OUT_SEED}, calibration's default "
        f"{CALIBRATION_SEED}.",
        "",
        "## Limits",
        "",
        "It is a test object, not an assistant: photographs, other languages and other questions are outside what it "
        "can do. Its numbers say how pruning treats this model, not how it treats a large one.",
        "",
    ]
    return "\n".join(lines)
