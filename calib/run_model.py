"""What a run was made with, opened again: its model, its feature cache, and where its pictures lie."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import torch

from claspkit.cache.encoder import feature_key
from claspkit.cache.layout import MANIFEST
from claspkit.cache.store import FeatureStore
from claspkit.profiles.errors import MismatchError, UsageError
from claspkit.runtime.inputs import processor_sha256
from claspkit.runtime.models import LoadedModel, load_model

from .command import command_of
from .config import RunConfig
from .folder import RunFolder
from .own_files import kept_prototypes
from .plan_cache import choose_layers
from .sources import SourceOptions
from .space import make_space

DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Values of ``--dtype``."""


def load_run_model(
    config: RunConfig, facts: Mapping[str, Any], folder: RunFolder, device: str | None = None
) -> LoadedModel:
    """Load the model that a run calibrated.

    Args:
        config: what the run was asked.
        facts: what it was locked with.
        folder: where it lies.
        device: torch device; None for the run's own.

    Raises:
        UsageError: the model cannot be loaded.
        MismatchError: it is not the one that was calibrated.
    """
    dtype = DTYPES[config.dtype] if config.dtype else None
    loaded = load_model(config.model, device=device or config.device, dtype=dtype, revision=config.revision)
    now = {"model_fingerprint": loaded.spec.fingerprint, "processor": processor_sha256(loaded)}
    if other := [name for name, value in now.items() if facts[name] != value]:
        raise MismatchError(
            f"{config.model} is not the model that {folder.root} calibrated: another {' and '.join(other)}. Bring "
            f"that model back, or calibrate this one: {command_of(facts, folder.root)} --fresh"
        )
    return loaded


def open_run_features(
    loaded: LoadedModel, config: RunConfig, facts: Mapping[str, Any], folder: RunFolder, used: Collection[str]
) -> FeatureStore:
    """Open a run's feature cache for reading; the caller closes it.

    Args:
        loaded: the run's model.
        config: what the run was asked.
        facts: what it was locked with.
        folder: where it lies.
        used: digests of pictures that it must hold.

    Raises:
        UsageError: it lacks some; the text holds the command that computes them.
    """
    depth = loaded.spec.vision_depth
    space = make_space(loaded.spec.default_layer, config.rhos, kept_prototypes(folder), depth)
    layers = choose_layers(config.cache_layers, loaded.family.facts(loaded.model), space)
    key, gone = feature_key(loaded, layers=layers, dtype=config.cache_dtype), len(used)
    if (folder.features / MANIFEST).exists():
        repair = f"claspkit cache repair {shlex.quote(str(folder.root))}"
        store = FeatureStore.open(folder.features, key, repair=repair)
        gone = len(store.missing(used))
        if not gone:
            return store
        store.close()
    raise UsageError(
        f"the feature cache {folder.features} lacks {gone} of the {len(used)} pictures needed. This computes them "
        f"anew: {command_of(facts, folder.root)}"
    )


def source_options(config: RunConfig, folder: RunFolder) -> SourceOptions:
    """Where a run's samples come from, and where their pictures lie."""
    return SourceOptions(
        data=config.data,
        model_name=config.model,
        image_root=Path(config.image_root) if config.image_root else None,
        materialise=folder.images,
        per_class=config.per_class,
        seed=config.seed,
        max_rows=config.max_rows,
        columns=dict(config.columns),
        scorer=config.scorer,
    )
