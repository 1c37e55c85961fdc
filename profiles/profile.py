"""The profile: what a deployer needs to prune one model, and what a reader needs to believe it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, Field, JsonValue, ValidationError, model_validator

from .budget import MAX_STAGES, Budget, Scaling
from .canonical import canonical_json, digest, strict_loads
from .errors import ProfileError, UsageError, shorten
from .fields import (
    Count,
    Depth,
    FileName,
    IntentId,
    Layer,
    Name,
    Score,
    ScorerName,
    Sha256,
    Signed,
    Spec,
    StageLayer,
    Text,
    Tokens,
    Unit,
    Width,
)
from .intents import STANDARD
from .profile_checks import check_budget, check_own_stages
from .profile_intents import IntentSpec, check_intents, specs_taxonomy
from .taxonomy import MAX_CLASSES, Taxonomy

MAX_BYTES = 2**20
MAX_VALUES = 2**15
"""JSON values in a profile, what is inside ``extensions`` included: so many are read in well under 100 ms."""
MAX_ENTRIES = 256
"""Of any list or object of a profile outside ``extensions``; the longest that the fields below allow."""
SCHEMA_VERSION = "1.3"
PLAIN_VERSION = "1.2"  # of a profile that uses nothing of 1.3: its content and id are those of the release before
LAYER_CONVENTION = "hidden_states, 0 = embeddings"
WEIGHT_TOLERANCE = 1e-6
_NAME_SHOWN = 80


class StageSpec(Spec):
    """Decoder layers > ``after_layer`` (0-based; -1 is before the decoder) see ``keep`` visual tokens."""

    after_layer: StageLayer
    keep: Tokens


class ModelSpec(Spec):
    """The model a profile was made for.

    Layers are counted as in ``hidden_states``: 0 is the embedding output, ``vision_depth`` the last block's
    output. ``default_layer`` is the one the unmodified model projects. ``fingerprint`` covers projector and
    processor.
    """

    family: Name
    id: Name
    revision: Name | None
    vision_depth: Depth
    vision_width: Width
    decoder_depth: Depth
    decoder_width: Width
    visual_tokens: Tokens
    default_layer: Layer
    fingerprint: Sha256

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.default_layer > self.vision_depth:
            reason = f"layer {self.default_layer} of a tower whose last is {self.vision_depth}"
            raise ProfileError("model.default_layer", reason)
        return self


class BudgetSpec(Spec):
    """The token schedule and its two means per decoder layer: tokens leaving a layer, tokens entering it.

    ``scaling`` (since 1.1) says what ``keep`` means for a picture of another size than the model's reference.
    """

    nominal: Tokens
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=MAX_STAGES, fail_fast=True)]
    schedule: Name
    mean_tokens_leaving: Annotated[float, Field(ge=0.0, le=2.0**20)]
    mean_tokens_entering: Annotated[float, Field(ge=0.0, le=2.0**20)]
    scaling: Scaling = "absolute"

    @classmethod
    def from_budget(cls, budget: Budget, scaling: Scaling = "absolute") -> BudgetSpec:
        """The same schedule as it stands in a profile; ``scaling`` is the model family's."""
        return cls(
            nominal=budget.nominal,
            stages=tuple(StageSpec(after_layer=item.after_layer, keep=item.keep) for item in budget.stages),
            schedule=budget.schedule,
            mean_tokens_leaving=budget.mean_leaving,
            mean_tokens_entering=budget.mean_entering,
            scaling=scaling,
        )


class SelectionSpec(Spec):
    """How tokens are chosen: reference rows of the saliency, features compared, k-means rounds, tie width.

    ``positions`` (since 1.1): kept tokens "keep" their position ids, or "renumber" closes the gaps.
    """

    saliency: Literal["text", "last", "cls"]
    features: Literal["aligned"]
    kmeans_iterations: Annotated[int, Field(ge=0, le=100)]
    tie_tolerance: Annotated[float, Field(ge=0.0, le=0.1)]
    positions: Literal["keep", "renumber"] = "keep"


class RouterSpec(Spec):
    """How a prompt gets its class. ``file`` is a plain name inside the profile's folder."""

    kind: Literal["rules", "student"]
    rules_version: Name | None
    file: FileName | None
    sha256: Sha256 | None
    min_confidence: Unit
    fallback: IntentId

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, present in (
            ("rules_version", self.kind == "rules"),
            ("file", self.kind == "student"),
            ("sha256", self.kind == "student"),
        ):
            if (getattr(self, name) is not None) != present:
                need = "is needed" if present else "has no place"
                raise ProfileError(f"router.{name}", f"it {need} in a router of kind {self.kind!r}")
        return self


class ClassSpec(Spec):
    """The configuration of one intent and the evidence for it.

    ``layers`` ascend; ``weights`` = softmax(tau * scores) over them. ``rho`` is the share of attention
    pivots. ``score``, ``default_score``, ``difference`` and its interval are holdout means of a metric in [0,
    1]. ``stages`` (since 1.3) are the class's own, at the layers of ``budget.stages``; None for those of the budget.
    """

    intent: IntentId
    prototype: Name
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=64, fail_fast=True)]
    scores: Annotated[tuple[Score, ...], Field(min_length=1, max_length=64, fail_fast=True)]
    tau: Annotated[float, Field(gt=0.0, le=1e4)]
    weights: Annotated[tuple[Unit, ...], Field(min_length=1, max_length=64, fail_fast=True)]
    rho: Unit
    decision: Literal["searched", "kept_default"]
    reason: Text
    n_search: Count
    n_holdout: Count
    score: Unit | None
    default_score: Unit | None
    difference: Signed | None
    ci_low: Signed | None
    ci_high: Signed | None
    p_value: Unit | None
    stages: Annotated[tuple[StageSpec, ...], Field(min_length=1, max_length=MAX_STAGES, fail_fast=True)] | None = None


class DatasetSpec(Spec):
    """One source of calibration samples and how many were used."""

    name: Name
    revision: Name | None
    split: Name | None
    samples: Count


class CalibrationSpec(Spec):
    """Where the numbers come from: ``label_sources`` counts labels, ``environment`` names versions."""

    datasets: Annotated[tuple[DatasetSpec, ...], Field(max_length=256, fail_fast=True)]
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)]
    scorers: Annotated[tuple[ScorerName, ...], Field(max_length=64, fail_fast=True)]
    label_sources: Annotated[dict[Name, Count], Field(max_length=256)]
    environment: Annotated[dict[Name, Text], Field(max_length=256)]
    ledger_sha256: Sha256
    candidate_evaluations: Count
    vision_passes: Count


class ProfileBody(Spec):
    """A profile without its id. Unknown fields are refused everywhere but inside ``extensions``.

    ``intents`` (since 1.2) are the classes of a user's own taxonomy; without it they are the standard nine.
    """

    format: Literal["clasp-profile"]
    schema_version: Annotated[str, Field(pattern=r"^1\.(0|[1-9][0-9]{0,3})$")]
    layer_index_convention: Literal["hidden_states, 0 = embeddings"]
    taxonomy: Sha256
    model: ModelSpec
    router: RouterSpec
    budget: BudgetSpec
    selection: SelectionSpec
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=MAX_CLASSES, fail_fast=True)]
    calibration: CalibrationSpec
    extensions: Annotated[dict[Name, JsonValue], Field(max_length=64)]
    intents: Annotated[tuple[IntentSpec, ...], Field(min_length=2, max_length=MAX_CLASSES, fail_fast=True)] | None = (
        None
    )

    @model_validator(mode="after")
    def _check_against_each_other(self) -> Self:
        ids = check_intents(self.taxonomy, self.intents, self.router.kind, self.router.fallback)
        check_budget(self.budget, self.model, self.selection)
        if len(self.classes) != len(ids):
            raise ProfileError("classes", f"{len(self.classes)} of them, the taxonomy has {len(ids)}")
        for index, (spec, intent) in enumerate(zip(self.classes, ids, strict=True)):
            if spec.intent != intent:
                raise ProfileError(f"classes[{index}].intent", f"{spec.intent!r} where {intent!r} belongs")
            _check_class(f"classes[{index}]", spec, self.model.vision_depth)
            if spec.stages is not None:
                check_own_stages(f"classes[{index}]", spec.stages, self.budget, self.model)
        return self

    @property
    def intent_ids(self) -> tuple[str, ...]:
        """Ids of the classes, in order."""
        return tuple(spec.intent for spec in self.classes)

    def for_intent(self, intent: str) -> ClassSpec:
        """The class of an intent id.

        Raises:
            UsageError: no such intent; the text lists them.
        """
        ids = self.intent_ids
        if intent not in ids:
            raise UsageError(f"unknown intent {shorten(intent)}; there are: {', '.join(ids)}")
        return self.classes[ids.index(intent)]

    def read_taxonomy(self) -> Taxonomy:
        """What the classes are, without definitions where they are a user's own."""
        return STANDARD if self.intents is None else specs_taxonomy(self.intents, self.router.fallback)


class Profile(ProfileBody):
    """A sealed profile: ``profile_id`` is the SHA-256 of the canonical JSON of everything else."""

    profile_id: Sha256

    @model_validator(mode="after")
    def _check_id(self) -> Self:
        computed = body_digest(self)
        if self.profile_id != computed:
            raise ProfileError(
                "profile_id",
                f"it says {self.profile_id[:12]}..., the content has {computed[:12]}...: the file was "
                "changed after it was written. Export it again from its run",
            )
        return self


_Body = TypeVar("_Body", bound=ProfileBody)


def body_digest(body: ProfileBody) -> str:
    """SHA-256 of the canonical JSON of all fields but ``profile_id``."""
    return digest(body.model_dump(mode="json", exclude={"profile_id"}))


def seal(fields: Mapping[str, Any]) -> Profile:
    """Check the fields of a profile and give them their id; constants and ``extensions`` may be left out.

    The version is the oldest, from :data:`PLAIN_VERSION` on, that has all the fields that are used.

    Raises:
        ProfileError: names the first field that is wrong.
    """
    constants = {
        "format": "clasp-profile",
        "schema_version": PLAIN_VERSION,
        "layer_index_convention": LAYER_CONVENTION,
        "taxonomy": STANDARD.digest,
        "extensions": {},
    }
    plain = {name: value for name, value in _plain({**constants, **fields}).items() if name != "profile_id"}
    try:
        data = canonical_json(plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise ProfileError("(file)", str(error)) from None
    body = _validate(ProfileBody, data)
    if "schema_version" not in fields and any(spec.stages is not None for spec in body.classes):
        body = body.model_copy(update={"schema_version": SCHEMA_VERSION})
    return Profile.model_validate({**dict(body), "profile_id": body_digest(body)})


def parse_profile(data: bytes) -> Profile:
    """Read a profile from bytes that may be hostile.

    Raises:
        ProfileError: names the first field that is wrong, or ``(file)``.
    """
    return _validate(Profile, data)


def _validate(kind: type[_Body], data: bytes) -> _Body:
    try:
        parsed = strict_loads(data, max_bytes=MAX_BYTES, max_values=MAX_VALUES)
    except ValueError as error:
        raise ProfileError("(file)", str(error)) from None
    if not isinstance(parsed, dict):
        raise ProfileError("(file)", f"a profile is a JSON object, this is {shorten(parsed)}")
    _check_entries(parsed)
    try:
        # From text and not from ``parsed``: only there does strict mode take an array for a tuple.
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise _first_problem(error) from None


def _check_entries(parsed: Mapping[str, Any]) -> None:
    """Refuse lists and objects that are longer than any may be, before every entry of them is an error of its own."""
    waiting: list[tuple[str, Any]] = [("", {name: item for name, item in parsed.items() if name != "extensions"})]
    while waiting:
        field, value = waiting.pop()
        if len(value) > MAX_ENTRIES:
            raise ProfileError(field or "(file)", f"{len(value)} entries, at most {MAX_ENTRIES} are allowed")
        if isinstance(value, list):
            inner = [(f"{field}[{index}]", item) for index, item in enumerate(value)]
        else:
            inner = [(f"{field}.{_shown(name)}".lstrip("."), item) for name, item in value.items()]
        waiting += [(name, item) for name, item in reversed(inner) if isinstance(item, list | dict)]


def _shown(name: str) -> str:
    """A field's name from outside, as it may stand in a message."""
    shown = repr(name[:_NAME_SHOWN])[1:-1]
    return shown if len(name) <= _NAME_SHOWN else f"{shown}..."


def _first_problem(error: ValidationError) -> ProfileError:
    problems = error.errors(include_url=False)
    first = problems[0]
    field = ""
    for part in first["loc"]:
        # Of a name that is not allowed itself, the last part is "[key]": the message says what is wrong with it.
        if part != "[key]" or part is not first["loc"][-1]:
            field += f"[{part}]" if isinstance(part, int) else f".{_shown(part)}"
    more = f" ({len(problems) - 1} more fields are wrong)" if len(problems) > 1 else ""
    got = "" if first["type"] in {"missing", "extra_forbidden"} else f", got {shorten(first['input'])}"
    return ProfileError(field.lstrip(".") or "(file)", f"{first['msg']}{got}{more}")


def _plain(value: Any) -> Any:
    """The same value with models turned into dicts."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _check_class(field: str, spec: ClassSpec, vision_depth: int) -> None:
    if list(spec.layers) != sorted(set(spec.layers)):
        raise ProfileError(f"{field}.layers", f"{list(spec.layers)} must ascend without a repetition")
    if spec.layers[-1] > vision_depth:
        reason = f"layer {spec.layers[-1]} of a tower whose last is {vision_depth}"
        raise ProfileError(f"{field}.layers", reason)
    for name in ("scores", "weights"):
        count = len(getattr(spec, name))
        if count != len(spec.layers):
            raise ProfileError(f"{field}.{name}", f"{count} of them for {len(spec.layers)} layers")
    expected = softmax_weights(spec.scores, spec.tau)
    gap = max(abs(a - b) for a, b in zip(spec.weights, expected, strict=True))
    if gap > WEIGHT_TOLERANCE or abs(math.fsum(spec.weights) - 1.0) > WEIGHT_TOLERANCE:
        raise ProfileError(f"{field}.weights", f"they differ from softmax(tau * scores) by up to {gap:.2g}")
    if spec.ci_low is not None and spec.ci_high is not None and spec.ci_low > spec.ci_high:
        raise ProfileError(f"{field}.ci_low", f"{spec.ci_low} is above ci_high {spec.ci_high}")


def softmax_weights(scores: tuple[float, ...] | list[float], tau: float) -> tuple[float, ...]:
    """Fusion weights softmax(tau * scores), Eq. 8: non-negative, sum 1."""
    top = max(scores)
    parts = [math.exp(tau * (score - top)) for score in scores]
    total = math.fsum(parts)
    return tuple(part / total for part in parts)
