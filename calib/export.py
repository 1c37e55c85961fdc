"""A profile folder for deployment: what the runtime reads, what people read, and digests of both."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from claspkit.profiles.canonical import sha256_hex, write_atomic
from claspkit.profiles.errors import UsageError
from claspkit.profiles.files import FILE_NAME, read_profile, read_router_file
from claspkit.profiles.profile import Profile

from .folder import RunFolder


def export_profile(source: Path, target: Path) -> list[str]:
    """Write the profile of a run, or a profile, into ``target``; returns the names of the files.

    Raises:
        UsageError: there is no profile, or ``target`` holds something already.
        ProfileError: the profile is damaged.
    """
    run = RunFolder(source)
    path = run.profile if run.profile.exists() else source / FILE_NAME if source.is_dir() else source
    profile = read_profile(path)
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty; give --to a new folder")
    target.mkdir(parents=True, exist_ok=True)
    contents = {
        FILE_NAME: path.read_bytes(),
        "schema.json": files("claspkit.profiles").joinpath("schema.json").read_bytes(),
        "README.md": _card(profile).encode(),
    }
    if profile.router.file is not None:
        contents[profile.router.file] = read_router_file(profile.router, path.parent)
    contents["SHA256SUMS"] = "".join(f"{sha256_hex(data)}  {name}\n" for name, data in contents.items()).encode()
    for name, data in contents.items():
        write_atomic(target / name, data)
    return list(contents)


def _card(profile: Profile) -> str:
    """A README that says what the profile is for and what was shown for it."""
    budget = profile.budget
    lines = [
        f"# Visual-token pruning profile for {profile.model.id}",
        "",
        f"Profile `{profile.profile_id}`, nominal budget {budget.nominal} of {profile.model.visual_tokens} visual "
        f"tokens (mean per decoder layer: {budget.mean_tokens_leaving:.1f} leaving, "
        f"{budget.mean_tokens_entering:.1f} entering).",
        "",
        "```python",
        "from claspkit.profiles import read_profile",
        "from claspkit.runtime import prune",
        "",
        'profile = read_profile("profile.json")',
        "with prune(model, profile, prompts=[question]):",
        "    model.generate(**inputs)",
        "```",
        "",
        "| class | layers | rho | decision | holdout samples | default score | difference of the tested candidate |",
        "|---|---|---|---|---|---|---|",
    ]
    for spec in profile.classes:
        shown = "not tested"
        if spec.difference is not None and spec.ci_low is not None and spec.ci_high is not None:
            shown = f"{spec.difference:+.3f} [{spec.ci_low:+.3f}, {spec.ci_high:+.3f}]"
        default = "-" if spec.default_score is None else f"{spec.default_score:.3f}"
        layers = ", ".join(map(str, spec.layers))
        lines.append(
            f"| {spec.intent} | {layers} | {spec.rho:g} | {spec.decision} | {spec.n_holdout} | {default} | {shown} |"
        )
    return "\n".join([*lines, ""])
