"""The README.md of what is shipped: what it is for, what was shown for it, and the same for the hub's model index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from claspkit.profiles.profile import ClassSpec, Profile, RouterSpec

from .markdown import literal, table

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TASK, _TASK_NAME = "image-text-to-text", "Visual question answering"


def profile_card(profile: Profile) -> str:
    """Return the card of a profile: metadata as the hub reads it (YAML), then the text for people."""
    return f"---\n{_metadata(profile)}\n---\n\n" + "\n".join([*_text(profile), ""])


def _metadata(profile: Profile) -> str:
    """The front matter. A class's score is that of the configuration it has in the profile."""
    datasets = [item.name for item in profile.calibration.datasets]
    hub_sets = sorted({name for name in datasets if _HUB_ID.fullmatch(name)})
    results = [result for spec in profile.classes for result in _results(spec, datasets, profile)]
    data = ModelCardData(
        base_model=profile.model.id if _HUB_ID.fullmatch(profile.model.id) else None,
        datasets=hub_sets or None,
        eval_results=results or None,
        library_name="claspkit",
        model_name=f"Pruning profile {profile.profile_id[:12]} for {profile.model.id}",
        pipeline_tag=_TASK,
        tags=["visual-token-pruning", "clasp"],
    )
    return str(data.to_yaml())


def _results(spec: ClassSpec, datasets: list[str], profile: Profile) -> Iterator[EvalResult]:
    searched = spec.decision == "searched"
    score = spec.score if searched else spec.default_score
    rows: list[tuple[str, str, float | None]] = [("score", "Holdout score", score)]
    if searched:
        rows += [
            ("difference", "Paired difference to the default configuration", spec.difference),
            ("difference_ci_low", "Lower end of its 95 % interval", spec.ci_low),
            ("difference_ci_high", "Upper end of its 95 % interval", spec.ci_high),
            ("p_value", "p of the paired test, before Holm's correction", spec.p_value),
        ]
    for kind, name, value in rows:
        if value is not None:
            yield EvalResult(
                task_type=_TASK,
                task_name=_TASK_NAME,
                dataset_type=datasets[0] if len(datasets) == 1 else "mixture",
                dataset_name=f"holdout of {', '.join(datasets) or 'unnamed data'}",
                dataset_config=spec.intent,
                dataset_args={"samples": spec.n_holdout, "seed": profile.calibration.seed},
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )


def _text(profile: Profile) -> list[str]:
    """The lines for people."""
    budget, own = profile.budget, [spec.intent for spec in profile.classes if spec.stages is not None]
    return [
        f"# Visual-token pruning profile for {literal(profile.model.id)}",
        "",
        f"Profile `{profile.profile_id}`, nominal budget {budget.nominal} of {profile.model.visual_tokens} visual "
        f"tokens (mean per decoder layer: {budget.mean_tokens_leaving:.1f} leaving, "
        f"{budget.mean_tokens_entering:.1f} entering).",
        *([f"Classes that keep other numbers of tokens at the same layers: {', '.join(own)}."] if own else []),
        "",
        "```python",
        *(["from pathlib import Path", ""] if profile.router.file else []),
        "from claspkit.profiles import read_profile",
        "from claspkit.runtime import prune",
        "",
        'profile = read_profile("profile.json")',
        f"with prune(model, profile, prompts=[question]{', folder=Path()' if profile.router.file else ''}):",
        "    model.generate(**inputs)",
        "```",
        "",
        _router_line(profile.router),
        "",
        *table(
            (
                "class",
                "layers",
                "rho",
                "kept tokens",
                "decision",
                "holdout samples",
                "default score",
                "difference of the tested candidate, 95 % interval",
            ),
            (_class_row(spec, profile) for spec in profile.classes),
        ),
        "",
        "Scores are means on a holdout that the search never saw. A class leaves the default configuration only where "
        "the difference is significant.",
        "",
        "`sha256sum -c SHA256SUMS` checks the copy, `claspkit verify .` also what is in it.",
    ]


def _class_row(spec: ClassSpec, profile: Profile) -> tuple[object, ...]:
    return (
        spec.intent,
        ", ".join(map(str, spec.layers)),
        f"{spec.rho:g}",
        " / ".join(str(stage.keep) for stage in spec.stages or profile.budget.stages),
        spec.decision,
        spec.n_holdout,
        None if spec.default_score is None else f"{spec.default_score:.3f}",
        difference_words(spec),
    )


def difference_words(spec: ClassSpec) -> str:
    """The tested candidate's paired difference to the default with its interval, or that nothing was tested."""
    if spec.difference is None or spec.ci_low is None or spec.ci_high is None:
        return "not tested"
    return f"{spec.difference:+.3f} ({spec.ci_low:+.3f} to {spec.ci_high:+.3f})"


def _router_line(router: RouterSpec) -> str:
    """What gives a prompt its class, and where the folder of that is needed."""
    if router.file is None:
        return f"Prompts are routed by rules, version {literal(router.rules_version)}."
    return (
        f"Prompts are routed by the student in `{router.file}`, which stays beside `profile.json`; `folder` says "
        f"where. A label less sure than {router.min_confidence:.3f} becomes `{router.fallback}`."
    )


def folded_card(profile: Profile, spec: ClassSpec, config: Any) -> str:
    """A README that says what a folded model is, what it comes from, and what it is not."""
    model = profile.model
    shares = ", ".join(f"{layer}: {share:.4g}" for layer, share in zip(spec.layers, spec.weights, strict=True))
    lines = [
        f"# {model.id} with the vision-layer fusion of class `{spec.intent}`",
        "",
        f"Made from {model.id}{f' at revision {model.revision}' if model.revision else ''}, whose licence applies, and "
        f"from class `{spec.intent}` of profile `{profile.profile_id}`.",
        "",
        f"- Vision layers and their shares (0 = embeddings): {shares}",
        f"- `vision_feature_layer` of config.json: {config.vision_feature_layer}",
        f"- What the profile decided for this class: {spec.decision} ({spec.reason})",
        "",
        "The shares are multiplied into the projector's first layer; all other weights are those of the model above. "
        "It computes what that model computes when hooks fuse these layers, up to rounding to the stored dtype.",
        "",
        "**Fusion only.** No visual token is pruned, so nothing is saved, and prompts of every class get this one "
        "class's fusion. The profile's scores were measured with pruning; they do not describe this model.",
        "",
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'model = AutoModelForImageTextToText.from_pretrained("this folder")',
        'processor = AutoProcessor.from_pretrained("this folder")',
        "```",
        "",
    ]
    return "\n".join(lines)
