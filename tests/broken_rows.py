"""Profiles broken by hand, one place each: all but the classes and the calibration, which broken_rows_more.py has."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from profile_example import before_decoder_fields, edited, profile_fields, written

from claspkit.profiles.profile import seal
from claspkit.profiles.profile_intents import IntentSpec, specs_taxonomy


class _Gone:
    """Stands for a field that is taken away."""

    def __repr__(self) -> str:
        return "GONE"


@dataclass(frozen=True)
class Raw:
    """JSON as it is typed, where no value of Python says it."""

    text: str


GONE = _Gone()


@dataclass(frozen=True)
class Row:
    """One broken profile.

    Attributes:
        base: which of :func:`valid` it is made from.
        where: the place that is changed, ``classes[3].layers[0]``.
        value: what is put there; :data:`GONE` takes it away, :class:`Raw` is typed as it is.
        field: what the error has to name.
    """

    base: str
    where: str
    value: Any
    field: str

    @property
    def place(self) -> tuple[str | int, ...]:
        """``where``, taken apart."""
        parts = re.findall(r"\[(\d+)\]|([^.\[]+)", self.where)
        return tuple(int(number) if number else name for number, name in parts)

    def text(self) -> str:
        """The file, with an id that fits what is in it where that can be had."""
        fields = copy.deepcopy(valid(self.base))
        if self.value is GONE:
            parent: Any = fields
            for part in self.place[:-1]:
                parent = parent[part]
            del parent[self.place[-1]]
        elif isinstance(self.value, Raw):
            return json.dumps(edited(fields, self.place, "@")).replace('"@"', self.value.text, 1)
        else:
            fields = edited(fields, self.place, self.value)
        if self.where.startswith("profile_id"):
            return json.dumps(fields)
        body = {name: value for name, value in fields.items() if name != "profile_id"}
        try:
            data = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:  # half a surrogate pair has no bytes to digest
            return json.dumps(fields)
        return json.dumps({**body, "profile_id": hashlib.sha256(data).hexdigest()})


@cache
def valid(base: str) -> dict[str, Any]:
    """A valid profile: "plain", with a "student", an "own" taxonomy, "stages" of class 3, one "before" the decoder."""
    fields = profile_fields()
    student = {**fields["router"], "kind": "student", "rules_version": None}
    student |= {"file": "r.safetensors", "sha256": "ab" * 32}
    if base == "before":
        fields = before_decoder_fields()
    elif base == "student":
        fields["router"] = student
    elif base == "stages":
        fields["classes"][3]["stages"] = [{"after_layer": layer, "keep": 90} for layer in (2, 6, 15)]
    elif base == "own":
        ids = ("alpha", "beta")
        specs = tuple(IntentSpec(id=name, name=name.title(), fine=(f"{name}_1", f"{name}_2")) for name in ids)
        rows = [{**row, "intent": name} for row, name in zip(fields["classes"], ids, strict=False)]
        fields |= {"intents": [spec.model_dump(mode="json") for spec in specs], "classes": rows}
        fields |= {"taxonomy": specs_taxonomy(specs, "beta").digest, "router": {**student, "fallback": "beta"}}
    return written(seal(fields))


def wrong(where: str, *values: Any, base: str = "plain", field: str | None = None) -> Iterator[Row]:
    """A row per value; the error names the place itself unless ``field`` says otherwise."""
    for value in values:
        yield Row(base, where, value, where if field is None else field)


NO_NAME: tuple[Any, ...] = (GONE, "", "x" * 257, "a\x1b[31mb", "a\nb", "a\x00", "\x9b2J", 5, True, [], ["a"], {})
NO_DIGEST: tuple[Any, ...] = (
    *(GONE, None, "", "ab" * 31, "ab" * 33, "AB" * 32, "ab" * 32 + "\n"),
    *("gh" * 32, "０" * 64, 0, ["ab" * 32]),
)
NO_TOKENS: tuple[Any, ...] = (GONE, None, "576", 576.0, 0, -1, 2**20 + 1, True, [576], Raw("1e5"), Raw("2e-1"))
PATHS: tuple[Any, ...] = (
    "../r.safetensors",
    "..",
    ".",
    "/etc/passwd",
    "/dev/zero",
    "a/b",
    "./r",
    "a\\b",
    "C:r",
    "~root",
    ".hidden",
    "",
    "r\n",
    "r\x00.safetensors",
    "file:///etc/passwd",
    "http://example.org/r",
    "$HOME",
    "r r",
    "r" * 129,
    "ｒ.safetensors",
    "\u202er",
    5,
    ["r"],
    GONE,
)

FILE: tuple[Row, ...] = (
    *wrong("format", GONE, None, "", "clasp_profile", "CLASP-PROFILE", "clasp-profile ", 1, ["clasp-profile"]),
    *wrong("schema_version", GONE, None, "2.0", "0.9", "1", "1.00", "1.0.0", "1.10000", "1.-1", " 1.2", "1.2\n", 1.2),
    *wrong("layer_index_convention", GONE, None, "1 = first block", "hidden_states, 0 = embedding", 0),
    *wrong("taxonomy", *NO_DIGEST, "00" * 32),
    *wrong("profile_id", *NO_DIGEST, "00" * 32),
    *wrong("surprise", 1, None, {}, "<script>"),
    *wrong("Format", "clasp-profile"),
    *wrong("__proto__", {}),
    *wrong("extensions", GONE, None, [], "x", 1, {f"{number}": 1 for number in range(65)}),
    *wrong("extensions.", 1, field="extensions"),
    *wrong("extensions.a\x07", 1, field="extensions.a\\x07"),
    *wrong("extensions." + "k" * 257, 1, field="extensions." + "k" * 80 + "..."),
    *wrong("extensions.x", Raw("NaN"), Raw("-Infinity"), Raw("1e999"), Raw("9" * 5000), "\ud800", field="(file)"),
    *wrong("extensions.x", 2**63 + 1, -(2**63) - 1, 10**40, Raw('{"a": 1, "a": 2}'), field="(file)"),
    *wrong("extensions.x", Raw("[" * 31 + "]" * 31), Raw("[1," * 900 + "1" + "]" * 900), field="(file)"),
    *wrong("extensions.x", Raw("[" + "1," * 33_000 + "1]"), Raw("tru"), Raw("'a'"), Raw("01"), Raw(""), field="(file)"),
    *wrong("extensions.x", Raw('"\t"'), Raw('"\\x41"'), Raw('"'), Raw("/* */ 1"), Raw("1, }"), field="(file)"),
)

MODEL: tuple[Row, ...] = (
    *wrong("model", GONE, None, [], "llava", 1),
    *wrong("model.surprise", 1),
    *wrong("model.Family", "llava"),
    *wrong("model.family", *NO_NAME, None),
    *wrong("model.id", *NO_NAME, None),
    *wrong("model.revision", *NO_NAME),
    *wrong("model.vision_depth", GONE, None, "24", 24.0, True, 0, -1, 512, 2**31, [24]),
    *wrong("model.vision_depth", 22, field="model.default_layer"),
    *wrong("model.vision_width", GONE, None, "1024", 1024.0, False, 0, -1, 2**20 + 1, 2**53),
    *wrong("model.decoder_depth", GONE, None, "32", 32.5, True, 0, 512, -32),
    *wrong("model.decoder_depth", 16, 3, field="budget.stages"),
    *wrong("model.decoder_depth", 33, field="budget.mean_tokens_leaving"),
    *wrong("model.decoder_width", GONE, None, "4096", 4096.0, True, 0, 2**40),
    *wrong("model.visual_tokens", *NO_TOKENS),
    *wrong("model.visual_tokens", 100, 299, field="budget.stages"),
    *wrong("model.visual_tokens", 577, field="budget.mean_tokens_leaving"),
    *wrong("model.default_layer", GONE, None, "23", 23.0, True, -1, -2, 25, 512, 2**63),
    *wrong("model.fingerprint", *NO_DIGEST),
)

ROUTER: tuple[Row, ...] = (
    *wrong("router", GONE, None, [], "rules"),
    *wrong("router.url", "http://example.org"),
    *wrong("router.kind", GONE, None, "", "oracle", "Rules", 1, ["rules"]),
    *wrong("router.kind", "student", field="router.rules_version"),
    *wrong("router.kind", "rules", base="student", field="router.rules_version"),
    *wrong("router.rules_version", *NO_NAME, None),
    *wrong("router.rules_version", "2.0", base="student"),
    *wrong("router.file", "r.safetensors", GONE, "../r"),
    *wrong("router.file", *PATHS, None, base="student"),
    *wrong("router.sha256", "ab" * 32, GONE),
    *wrong("router.sha256", *NO_DIGEST, base="student"),
    *wrong("router.min_confidence", GONE, None, "0.5", -0.1, -1e-9, 1.0000001, 2, True, [0.5], {}),
    *wrong("router.min_confidence", Raw("NaN"), Raw("Infinity"), Raw("1e400"), field="(file)"),
    *wrong("router.fallback", GONE, None, "", "defau1t", "Default", "default ", "dеfault", 8, ["default"]),
    *wrong("router.fallback", "default", base="own"),
)

BUDGET: tuple[Row, ...] = (
    *wrong("budget", GONE, None, [], 192),
    *wrong("budget.tokens", 192),
    *wrong("budget.nominal", *NO_TOKENS),
    *wrong("budget.nominal", 577, 2**20),
    *wrong("budget.schedule", *NO_NAME, None),
    *wrong("budget.scaling", "relative", None, "", "Absolute", 1, True),
    *wrong("budget.mean_tokens_leaving", GONE, None, "192", 100.0, 192.5, -1.0, 2.0**20 + 1, True, 1e30),
    *wrong("budget.mean_tokens_entering", GONE, None, "204", 192.4, 0, -0.5, 2**21, False),
    *wrong("budget.mean_tokens_entering", Raw("NaN"), field="(file)"),
    *wrong("budget.stages", GONE, None, [], {}, "2:300", 3, [{"after_layer": 2, "keep": 300}] * 9),
    *wrong("budget.stages[0]", None, [2, 300], "2:300", 2),
    *wrong("budget.stages[0].layer", 2),
    *wrong("budget.stages[0].after_layer", GONE, None, "2", 2.0, True, -2, 512, 2**63),
    *wrong("budget.stages[0].after_layer", 0, 6, 7, field="budget.stages"),
    *wrong("budget.stages[0].after_layer", -1, field="selection.saliency"),
    *wrong("budget.stages[1].after_layer", -1, 2, 15, 31, field="budget.stages"),
    *wrong("budget.stages[2].after_layer", 31, 500, field="budget.stages"),
    *wrong("budget.stages[0].keep", *NO_TOKENS),
    *wrong("budget.stages[0].keep", 577, 199, field="budget.stages"),
    *wrong("budget.stages[0].keep", 301, field="budget.mean_tokens_leaving"),
    *wrong("budget.stages[2].keep", 201, field="budget.stages"),
    *wrong("selection", GONE, None, [], "cls"),
    *wrong("selection.top_k", 5),
    *wrong("selection.saliency", GONE, None, "", "attention", "CLS", 1, ["text"]),
    *wrong("selection.saliency", "text", "last", base="before"),
    *wrong("selection.features", GONE, None, "hidden", "", 1),
    *wrong("selection.kmeans_iterations", GONE, None, "5", 5.0, True, -1, 101, 10**6, 2**63),
    *wrong("selection.tie_tolerance", GONE, None, "1e-6", -1e-6, 0.1000001, 1, True),
    *wrong("selection.tie_tolerance", Raw("NaN"), Raw("-Infinity"), field="(file)"),
    *wrong("selection.positions", "drop", "Keep", "", 1, None, True),
)
