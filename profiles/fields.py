"""The values that fields of a profile may have, each bounded, and the base of its parts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from .budget import BEFORE_DECODER

MAX_LAYER = 511

# No control characters: these texts are printed to terminals.
Text = Annotated[str, Field(max_length=400, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
ScorerName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}@[0-9]{1,6}$")]
IntentId = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Layer = Annotated[int, Field(ge=0, le=MAX_LAYER)]
StageLayer = Annotated[int, Field(ge=BEFORE_DECODER, le=MAX_LAYER)]
Depth = Annotated[int, Field(ge=1, le=MAX_LAYER)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Tokens = Annotated[int, Field(ge=1, le=2**20)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Score = Annotated[float, Field(ge=-1e4, le=1e4)]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Signed = Annotated[float, Field(ge=-1.0, le=1.0)]


class Spec(BaseModel):
    """The base of every part of a profile: strict, frozen, no unknown fields, finite numbers."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _leave_out_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Only fields of later minor versions have defaults. Left out where they have that value, they change neither
        the digest of an older file nor what an older reader can read."""
        later = {name: field.default for name, field in type(self).model_fields.items() if not field.is_required()}
        return {name: value for name, value in write(self).items() if name not in later or value != later[name]}
