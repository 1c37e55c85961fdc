"""Every error a user can meet, and the exit code of the command that met it.

ClaspError 1
  UsageError 2      what was asked for cannot be done as asked
  BadDataError 3    data that was given cannot be used
    NotFiniteError 3  a model gave NaN or infinity for it
  MismatchError 4   configuration, model and profile do not fit each other
  ResourceError 5   disk, memory or a lock is missing
  CorruptError 7    an artefact on disk is damaged or hostile
    ProfileError 7  a profile is; names the field
  Interrupted 130   stopped by the user; the same command continues
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

_SHOWN = 80


class ClaspError(Exception):
    """Base of all errors; its text says what was asked, what was got, what is allowed and what to run."""

    exit_code: ClassVar[int] = 1


class UsageError(ClaspError):
    """A request that cannot be met as given."""

    exit_code = 2


class BadDataError(ClaspError):
    """Data handed in that cannot be used."""

    exit_code = 3


class NotFiniteError(BadDataError):
    """NaN or infinity where a model's numbers were to be used."""


class MismatchError(ClaspError):
    """Two things that must fit do not; the text holds the differing fields, see :func:`field_diff`."""

    exit_code = 4


class ResourceError(ClaspError):
    """Disk space, memory, or a lock that another process holds."""

    exit_code = 5


class CorruptError(ClaspError):
    """A file of ours that is damaged or was made to harm."""

    exit_code = 7


class ProfileError(CorruptError):
    """A profile that cannot be trusted.

    Attributes:
        field: the offending field, like ``classes[2].rho``; ``"(file)"`` when the file as a whole is at
            fault.
        reason: why it is refused.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class Interrupted(ClaspError):
    """Stopped by the user or by a signal; nothing finished is lost."""

    exit_code = 130


def shorten(value: object, limit: int = _SHOWN) -> str:
    """The ``repr`` of a value from outside, cut to ``limit`` characters so that it fits a message."""
    if isinstance(value, str | bytes) and len(value) > limit:
        value = value[:limit]
        return f"{value!r}..."
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        text = f"{'an' if isinstance(value, int) else 'a'} {type(value).__name__} too large to show"
    return text if len(text) <= limit else text[:limit] + "..."


def field_diff(wanted: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """One line ``name: wanted X, got Y`` per field that differs or is on one side only, sorted by name."""
    lines = []
    for name in sorted(wanted.keys() | got.keys()):
        left = shorten(wanted[name]) if name in wanted else "nothing"
        right = shorten(got[name]) if name in got else "nothing"
        if name not in wanted or name not in got or wanted[name] != got[name]:
            lines.append(f"{name}: wanted {left}, got {right}")
    return lines
