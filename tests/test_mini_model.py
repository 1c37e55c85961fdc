"""The shipped model: standard form, right answers, and the same tokens in training as in use."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from claspkit.mini.align import AlignmentPlan
from claspkit.mini.build import PROMPT, build_tokenizer
from claspkit.mini.card import CURVES_END, CURVES_START, CardFacts, curves_of, render_card
from claspkit.mini.corpus import draw_pictures
from claspkit.mini.draw import PATCHES
from claspkit.mini.evaluate import mean_accuracy, packed_accuracy
from claspkit.mini.finetune import BINDING_MIX, BLOCK_LENGTH, MIX, AnswerPlan, mixed_questions
from claspkit.mini.layout import plan_layout
from claspkit.mini.packing import QuestionPacker, packed_hidden, use_packed_attention
from claspkit.mini.samples import HELD_OUT_SEED, MiniSample, draw_picture, generate_samples
from claspkit.mini.schedule import to_pixels
from claspkit.mini.store import MODEL_DIR, load_model
from claspkit.mini.train import Recipe, train
from claspkit.mini.words import INTENTS

SEED = 32_000


@pytest.fixture(scope="module")
def loaded() -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """The shipped model as any user would load it."""
    model = AutoModelForImageTextToText.from_pretrained(MODEL_DIR, local_files_only=True)
    return model.eval(), AutoProcessor.from_pretrained(MODEL_DIR, local_files_only=True)


def generated(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, samples: list[MiniSample]
) -> list[str]:
    """The model's own answers to ``samples``, one batch."""
    inputs = processor(
        images=[sample.picture for sample in samples],
        text=[PROMPT.format(question=sample.question) for sample in samples],
        return_tensors="pt",
        padding=True,
    )
    out = model.generate(**inputs, max_new_tokens=4)  # type: ignore[misc]  # the library's mixin types its self
    answers = processor.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def test_the_folder_is_a_small_plain_llava(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    model, processor = loaded
    assert type(model) is LlavaForConditionalGeneration
    assert isinstance(processor, LlavaProcessor)
    assert model.config.to_dict()["text_config"]["num_hidden_layers"] >= 8
    assert processor.tokenizer.padding_side == "left"
    assert (MODEL_DIR / "model.safetensors").stat().st_size < 20_000_000
    assert not list(MODEL_DIR.glob("*.bin"))
    assert "auto_map" not in json.loads((MODEL_DIR / "config.json").read_text(encoding="utf-8"))
    assert not model.generation_config.do_sample


def test_a_picture_becomes_144_tokens_of_any_size_of_picture(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    model, processor = loaded
    for size in ((96, 96), (300, 200)):
        inputs = processor(
            images=draw_picture(SEED, 0).resize(size), text=PROMPT.format(question="Why?"), return_tensors="pt"
        )
        assert int((inputs["input_ids"] == model.config.image_token_index).sum()) == PATCHES == 144
        assert inputs["pixel_values"].shape == (1, 3, 96, 96)


def test_the_shipped_tokenizer_is_the_recipe_s(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    assert build_tokenizer().get_vocab() == loaded[1].tokenizer.get_vocab()


def test_any_text_can_be_encoded_and_comes_back(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    text = "Où est l'étoile? 星はどこ 🙂\n\t42%"
    tokenizer = loaded[1].tokenizer
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text


def test_the_chat_template_gives_the_prompt_of_the_training(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    question = "What is the red object?"
    chat: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    assert loaded[1].apply_chat_template(chat, add_generation_prompt=True) == PROMPT.format(question=question)


def test_training_sees_the_tokens_and_pixels_of_the_processor(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    model, processor = loaded
    packer = QuestionPacker(processor.tokenizer)
    for sample in generate_samples(3, SEED):
        inputs = processor(
            images=sample.picture, text=PROMPT.format(question=sample.question), return_tensors="pt"
        )
        tokens, asked = packer.block(sample.question, sample.answer)
        image = [model.config.image_token_index] * PATCHES
        assert inputs["input_ids"][0].tolist() == [*packer.prefix, *image, *tokens[:asked]]
        assert tokens[-1] == processor.tokenizer.eos_token_id
        pixels = to_pixels(np.asarray(sample.picture)[None], torch.device("cpu"))
        assert torch.allclose(inputs["pixel_values"], pixels, atol=1e-6)


def test_a_packed_question_gets_the_logits_of_a_prompt_of_its_own() -> None:
    model, processor = load_model()
    packer = QuestionPacker(processor.tokenizer)
    rng = np.random.default_rng(0)
    questions = [mixed_questions(plan_layout(SEED, index), MIX, rng) for index in range(2)]
    ids = packer.pack(questions, BLOCK_LENGTH).ids
    pixels = to_pixels(draw_pictures(SEED, 2), torch.device("cpu"))
    with torch.no_grad():
        features = torch.stack(tuple(model.get_image_features(pixel_values=pixels).pooler_output))
        use_packed_attention(model)
        logits = model.lm_head(packed_hidden(model, packer.prefix, features, ids))
        model.set_attn_implementation("sdpa")
        for index, row in enumerate(questions):
            for number in range(0, len(row), 5):
                text = PROMPT.format(question=row[number].text)
                inputs = processor(images=draw_picture(SEED, index), text=text, return_tensors="pt")
                alone = model(**inputs).logits[0, -1]
                asked = packer.block(row[number].text, row[number].answer)[1]
                assert torch.allclose(alone, logits[index, number, asked - 1], atol=1e-3)


def test_a_left_padded_batch_answers_as_single_prompts_do(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    samples = list(generate_samples(2, SEED))
    assert generated(*loaded, samples) == [generated(*loaded, [sample])[0] for sample in samples]


def test_the_shipped_model_answers_and_needs_its_visual_tokens(
    loaded: tuple[LlavaForConditionalGeneration, LlavaProcessor],
) -> None:
    right: dict[str, list[bool]] = defaultdict(list)
    samples = list(generate_samples(24, SEED))
    for start in range(0, len(samples), 72):
        part = samples[start : start + 72]
        for sample, answer in zip(part, generated(*loaded, part), strict=True):
            right[sample.intent].append(answer == sample.answer)
    assert tuple(right) == INTENTS
    assert mean_accuracy({intent: sum(marks) / len(marks) for intent, marks in right.items()}) > 0.9

    model, processor = load_model()
    pictures, packer = draw_pictures(SEED, 60), QuestionPacker(processor.tokenizer)
    device = torch.device("cpu")
    full = packed_accuracy(model, packer, pictures, picture_seed=SEED, device=device)
    pruned = packed_accuracy(model, packer, pictures, picture_seed=SEED, device=device, random_keep=16)
    assert mean_accuracy(full) > 0.9
    assert min(full.values()) > 0.8
    assert mean_accuracy(full) - mean_accuracy(pruned) > 0.12


def test_the_card_states_the_accuracy_and_keeps_the_curves() -> None:
    facts = CardFacts(
        accuracy=dict.fromkeys(INTENTS, 0.975),
        pruned_accuracy=dict.fromkeys(INTENTS, 0.625),
        random_keep=16,
        held_out_pictures=2000,
        training_pictures=100,
        parameters=3_500_000,
        command="python -m claspkit.mini.train",
        machine="a machine",
        phase_seconds={"tower": 60.0},
    )
    card = render_card(facts, "| rho | object |")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert card.count("0.975") == len(INTENTS) + 1
    assert curves_of(card) == "| rho | object |"
    shipped = (MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert CURVES_START in shipped
    assert CURVES_END in shipped
    assert all(f"| {intent} |" in shipped for intent in INTENTS)


@pytest.mark.long
def test_the_recipe_runs_goes_on_after_a_stop_and_is_seeded(tmp_path: Path) -> None:
    recipe = Recipe(
        pictures=24,
        tower_steps=2,
        plans={
            "alignment": AlignmentPlan(2, rate=1e-3, tower_rate=0.0),
            "answers": AnswerPlan(1, 2, rate=1e-3, tower_rate=0.0, floor=0.5, mix=BINDING_MIX),
            "sharpening": AlignmentPlan(1, rate=1e-3, tower_rate=1e-3),
            "joint": AnswerPlan(2, 2, rate=1e-3, tower_rate=1e-3, floor=0.0, mix=MIX),
        },
        batch=4,
        validation_pictures=2,
        held_out_pictures=4,
    )
    cpu = torch.device("cpu")
    for name in ("first", "again"):
        train(recipe, tmp_path / name, 3, cpu, tmp_path / f"{name}-checkpoints", machine="a test")
    first, again = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "again"))
    assert first == again
    assert "Machine: a test." in (tmp_path / "first" / "README.md").read_text(encoding="utf-8")

    (tmp_path / "first-checkpoints" / "joint-seed3.safetensors").unlink()
    train(recipe, tmp_path / "resumed", 3, cpu, tmp_path / "first-checkpoints")
    assert (tmp_path / "resumed" / "model.safetensors").read_bytes() == first
    with pytest.raises(ValueError, match="for measuring"):
        train(recipe, tmp_path / "wrong", HELD_OUT_SEED, cpu, tmp_path / "wrong-checkpoints")
