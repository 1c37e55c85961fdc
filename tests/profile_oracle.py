"""Whether a file is a valid profile, decided without the reader: the published schema, and the rules of
docs/format-profile.md in plain Python."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import jsonschema
from house import ROOT

from claspkit.profiles.intents import INTENT_IDS, STANDARD

SCHEMA = json.loads((ROOT / "profiles" / "schema.json").read_text(encoding="utf-8"))
MOST_BYTES, DEEPEST, MOST_VALUES, LARGEST = 2**20, 32, 2**15, 2**63


def _is_integer(_: Any, value: object) -> bool:
    return type(value) is int


def _is_number(_: Any, value: object) -> bool:
    return type(value) in {int, float}


def _pattern(_: Any, pattern: str, value: object, __: Any) -> Iterator[jsonschema.ValidationError]:
    """As ECMA 262 and the reader have it: $ is the very end, not before a last newline too."""
    if isinstance(value, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], value: object, _: Any
) -> Iterator[jsonschema.ValidationError]:
    """A name that fits no pattern has no place, which JSON Schema itself leaves open."""
    for name, item in value.items() if isinstance(value, dict) else ():
        fitting = [schema for pattern, schema in patterns.items() if re.search(re.sub(r"\$$", r"\\Z", pattern), name)]
        if not fitting:
            yield jsonschema.ValidationError(f"{name!r} fits no pattern")
        for schema in fitting:
            yield from validator.descend(item, schema, path=name)


_Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator,
    {"pattern": _pattern, "patternProperties": _pattern_properties},
    type_checker=jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer).redefine(
        "number", _is_number
    ),
)
VALIDATOR = _Validator(SCHEMA)


def load(data: bytes) -> dict[str, Any] | str:
    """The JSON object in a file's bytes; in words why not, where the format refuses the file as a whole."""
    if len(data) > MOST_BYTES:
        return "too large"
    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_refuse, parse_float=_float, parse_int=_int)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        return str(error)[:80]
    if not isinstance(value, dict):
        return "no object"
    depth, values = _size(value)
    if depth > DEEPEST or values > MOST_VALUES:
        return "too much"
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _refuse(text: str) -> Any:
    raise ValueError(text)


def _float(text: str) -> float:
    if math.isinf(float(text)):
        raise ValueError(text)
    return float(text)


def _int(text: str) -> int:
    if len(text) > 25 or abs(int(text)) > LARGEST:
        raise ValueError(text)
    return int(text)


def _size(value: Any) -> tuple[int, int]:
    """Levels, and values as the format counts them: one, and one for every comma and opening bracket."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    if inner is None:
        return 0, 0
    sizes = [_size(item) for item in inner]
    return 1 + max((d for d, _ in sizes), default=0), max(1, len(inner)) + sum(v for _, v in sizes)


def problem(fields: dict[str, Any]) -> str | None:
    """What is wrong with the fields of a profile; None for a valid one."""
    if any(len(value) > 256 for name, value in _long(fields)):
        return "too many entries"
    wrong = next(VALIDATOR.iter_errors(fields), None)
    if wrong is not None:
        return f"schema: {wrong.message[:100]}"
    for rule in (_taxonomy, _router, _budget, _classes, _seal):
        said = rule(fields)
        if said is not None:
            return said
    return None


def _long(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if name != "extensions" and isinstance(value, dict | list):
            yield name, value


def _sha(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _ids(fields: dict[str, Any]) -> list[str]:
    own = fields.get("intents")
    return list(INTENT_IDS) if own is None else [row["id"] for row in own]


def _taxonomy(fields: dict[str, Any]) -> str | None:
    own, ids = fields.get("intents"), _ids(fields)
    if own is None:
        digest = STANDARD.digest
    else:
        fine = [name for row in own for name in row["fine"]]
        if len(set(ids)) < len(ids) or len(set(fine)) < len(fine) or len(fine) > 26:
            return "intents"
        if not all(row["name"].isprintable() for row in own):
            return "names of intents"
        if fields["router"]["kind"] == "rules":
            return "rules for own intents"
        digest = _sha([[index, row["id"], row["name"]] for index, row in enumerate(own)])
    if fields["taxonomy"] != digest or fields["router"]["fallback"] not in ids:
        return "taxonomy"
    return None if [row["intent"] for row in fields["classes"]] == ids else "order of classes"


def _router(fields: dict[str, Any]) -> str | None:
    router = fields["router"]
    rules = router["kind"] == "rules"
    wanted = {"rules_version": rules, "file": not rules, "sha256": not rules}
    return None if all((router[name] is not None) == here for name, here in wanted.items()) else "router"


def _stages_fit(stages: list[dict[str, int]], model: dict[str, Any]) -> bool:
    layers, keeps = [row["after_layer"] for row in stages], [row["keep"] for row in stages]
    inside = all(layer == -1 or 1 <= layer <= model["decoder_depth"] - 2 for layer in layers)
    ascend = all(a < b for a, b in pairwise(layers))
    shrink = all(a >= b for a, b in pairwise(keeps))
    return inside and ascend and shrink and keeps[0] <= model["visual_tokens"]


def _budget(fields: dict[str, Any]) -> str | None:
    budget, model, stages = fields["budget"], fields["model"], fields["budget"]["stages"]
    if not _stages_fit(stages, model):
        return "stages"
    if stages[0]["after_layer"] == -1 and fields["selection"]["saliency"] != "cls":
        return "saliency"
    if budget["nominal"] > model["visual_tokens"] or model["default_layer"] > model["vision_depth"]:
        return "bounds of the model"
    entering = []
    for layer in range(model["decoder_depth"] + 1):
        passed = [row["keep"] for row in stages if row["after_layer"] < layer]
        entering.append(passed[-1] if passed else model["visual_tokens"])
    means = {"entering": sum(entering[:-1]), "leaving": sum(entering[1:])}
    for name, total in means.items():
        if abs(budget[f"mean_tokens_{name}"] - total / model["decoder_depth"]) > 0.01:
            return f"mean {name}"
    return None


def _classes(fields: dict[str, Any]) -> str | None:
    for row in fields["classes"]:
        layers, scores, weights = row["layers"], row["scores"], row["weights"]
        if layers != sorted(set(layers)) or layers[-1] > fields["model"]["vision_depth"]:
            return "layers"
        if not len(layers) == len(scores) == len(weights):
            return "lengths"
        powers = [math.exp(row["tau"] * (score - max(scores))) for score in scores]
        if any(abs(w - p / sum(powers)) > 1e-6 for w, p in zip(weights, powers, strict=True)):
            return "softmax"
        if None not in (row["ci_low"], row["ci_high"]) and row["ci_low"] > row["ci_high"]:
            return "interval"
        own = row.get("stages")
        if own is not None:
            if [stage["after_layer"] for stage in own] != [s["after_layer"] for s in fields["budget"]["stages"]]:
                return "layers of own stages"
            if not _stages_fit(own, fields["model"]):
                return "own stages"
    return None


def meaning(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields as the format says they are digested: numbers that may have a point with one, defaults left out."""
    found: dict[str, Any] = _pointed(fields, SCHEMA)
    for part, name, default in (
        (found, "intents", None),
        (found["budget"], "scaling", "absolute"),
        (found["selection"], "positions", "keep"),
        *((row, "stages", None) for row in found["classes"]),
    ):
        if name in part and part[name] == default:
            del part[name]
    return found


def _pointed(value: Any, schema: dict[str, Any]) -> Any:
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for other in schema.get("anyOf", ()):
        if other.get("type") != "null" and value is not None:
            return _pointed(value, other)
    if schema.get("type") == "number" and value is not None:
        return float(value)
    if isinstance(value, list) and "items" in schema:
        return [_pointed(item, schema["items"]) for item in value]
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        return {name: _pointed(item, inner.get(name, {})) for name, item in value.items()}
    return value


def _seal(fields: dict[str, Any]) -> str | None:
    body = meaning(fields)
    return None if body.pop("profile_id") == _sha(body) else "profile_id"
