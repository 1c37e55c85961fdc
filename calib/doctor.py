"""What this installation and this machine can do, what they cannot, and why."""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Final, Literal

import torch

from claspkit.profiles.errors import ClaspError, ResourceError
from claspkit.router.student import SHIPPED, read_student
from claspkit.runtime.models import ALIASES, MINI, resolve_model
from claspkit.runtime.processors import load_processor

from .probe import probe_disk, probe_machine, probe_matmul

Status = Literal["ok", "note", "fails"]

LITTLE_SPACE: Final = 2 * 10**9
"""Bytes of free disk below which a calibration is not to be started."""

_REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)((?:(?:>=|<)[0-9.]+,?)*)$")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        value: what was found, for people.
        status: "ok", "note" (works, or is not there, and one should know) or "fails" (calibrating will not work).
        why: what follows from it and what to do; empty for "ok".
    """

    name: str
    value: str
    status: Status = "ok"
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def examine(folder: Path, device: str, *, probe: bool) -> list[Check]:
    """Look at everything a calibration or a pruned model needs.

    Args:
        folder: where runs and their caches go; need not exist.
        device: torch device to try.
        probe: measure disk and device, which writes 256 MiB into ``folder`` and deletes them.
    """
    checks = [Check("python", platform.python_version()), Check("machine", f"{platform.machine()}, {_memory()}")]
    checks += _packages()
    checks += _devices(device, probe)
    checks += [_image_backend(), _student()]
    checks += _disk(folder, probe)
    checks += _hub()
    return checks


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return "memory unknown"
    return f"{len(os.sched_getaffinity(0))} CPU cores, {total / 1e9:.0f} GB of memory"


def _packages() -> Iterator[Check]:
    """What the package itself asks for, against what is there."""
    for text in requires("claspkit") or []:
        match = _REQUIREMENT.match(text.partition(";")[0].strip().replace(" ", ""))
        if match is None or "extra" in text:
            continue
        name, bounds = match[1], [bound for bound in match[2].split(",") if bound]
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Check(name, "not installed", "fails", f"claspkit needs it: pip install '{name}{match[2]}'")
            continue
        outside = [bound for bound in bounds if not within(found, bound)]
        why = f"claspkit is made for {match[2]}: pip install '{name}{match[2]}'" if outside else ""
        yield Check(name, found, "fails" if outside else "ok", why)


def within(found: str, bound: str) -> bool:
    """Whether a version such as "5.23.0+cpu" keeps a bound such as ">=5.16" or "<6"; releases only."""
    below = bound.startswith("<")
    wanted = _release(bound.lstrip("<>="))
    release = _release(found)
    width = max(len(wanted), len(release))
    left, right = (value + (0,) * (width - len(value)) for value in (release, wanted))
    return left < right if below else left >= right


def _release(text: str) -> tuple[int, ...]:
    digits = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, digits[0].split("."))) if digits else ()


def _devices(device: str, probe: bool) -> Iterator[Check]:
    yield Check("cpu threads", f"{torch.get_num_threads()} of torch")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            yield Check(f"cuda:{index}", f"{name}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free")
    else:
        built = f"this torch ({torch.__version__}) is built {'with' if torch.version.cuda else 'without'} CUDA"
        yield Check("cuda", "no device", "note", f"--device cuda will be refused: {built}, and sees no GPU")
    if torch.backends.mps.is_available():
        yield Check("mps", "available")
    if not probe:
        return
    try:
        speed = probe_matmul(device)
    except ClaspError as error:
        yield Check(f"speed of {device}", "cannot be used", "fails", str(error))
    else:
        yield Check(f"speed of {device}", f"{speed / 1e9:.0f} GFLOP/s of matrix products")


def _image_backend() -> Check:
    """The code that resizes pictures; it is part of a feature cache's key."""
    source = resolve_model(MINI)
    transformers: Any = importlib.import_module("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(source.location)
        kind = type(load_processor(source.location, None, "llava", config).image_processor)
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        return Check("image backend", "none", "fails", f"the built-in model's processor cannot be built: {reason}")
    name = f"{kind.__module__.rsplit('.', 1)[-1]}.{kind.__name__}"
    try:
        return Check("image backend", f"{name}, torchvision {version('torchvision')}")
    except PackageNotFoundError:
        return Check(
            "image backend",
            f"{name}, without torchvision",
            "note",
            "Qwen2.5-VL, InternVL and Video-LLaVA get their inputs from claspkit's own code in place of their "
            "processors; of videos only animated GIF, WebP and PNG can be read. A feature cache made with torchvision "
            "is not used here, and the other way round: pixels differ in the last bits",
        )


def _student() -> Check:
    """The router that ships."""
    try:
        router = read_student(SHIPPED)
        label = router.label(["How many dogs are there?"])[0]
    except (ClaspError, OSError) as error:
        return Check("shipped router", "cannot be read", "fails", f"{error}. Install claspkit again")
    return Check("shipped router", f"reads, and calls a question for a number {label.intent!r}")


def _disk(folder: Path, probe: bool) -> Iterator[Check]:
    place = probe_machine(folder, "cpu", speeds=False)
    little = place.free < LITTLE_SPACE
    why = f"runs keep their caches here; less than {LITTLE_SPACE / 1e9:.0f} GB will not do. Give --out another disk"
    yield Check("free disk", f"{place.free / 1e9:.1f} GB in {place.folder}", *(("fails", why) if little else ()))
    try:
        with tempfile.TemporaryFile(dir=place.folder) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = f"{error.strerror}: a run needs a folder it can write and lock; give --out one on another file system"
        yield Check("lock", f"not in {place.folder}", "fails", why)
        return
    yield Check("lock", f"works in {place.folder}")
    if not probe:
        return
    try:
        write, read = probe_disk(Path(place.folder))
    except ResourceError as error:
        yield Check("disk speed", "not measured", "note", str(error))
    else:
        yield Check("disk speed", f"{write / 1e6:.0f} MB/s written, {read / 1e6:.0f} MB/s read")


def _hub() -> Iterator[Check]:
    """Which models can be had."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    yield Check("hub", "not asked (offline mode)" if HF_HUB_OFFLINE else "asked for what is not in the cache")
    yield Check("hub cache", HF_HUB_CACHE)
    found = {alias: try_to_load_from_cache(place, "config.json") for alias, place in ALIASES.items()}
    yield Check("models here", ", ".join([MINI, *(alias for alias in ALIASES if isinstance(found[alias], str))]))
    absent = [alias for alias in ALIASES if not isinstance(found[alias], str)]
    if not absent:
        return
    why = (
        "--model with these names will be refused: they are not in the cache, and the hub is not asked. On a machine "
        f"with network run, for example, hf download {ALIASES[absent[0]]}, and copy the cache"
    )
    yield Check("models not here", ", ".join(absent), *(("note", why) if HF_HUB_OFFLINE else ()))
