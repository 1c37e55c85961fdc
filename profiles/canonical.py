"""One encoding per value, JSON read with suspicion, and files that are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .errors import ResourceError, shorten

MAX_INTEGER = 2**63
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# One string or one mark. The closing quote is optional: an unterminated string is then one match, not one
# attempt per quote inside it, and the scan stays linear.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_STRING_OR_BRACKET = re.compile(_STRING + r"|[\[\]{}]", re.DOTALL)
_STRING_OR_MARK = re.compile(_STRING + r"|[\[\]{},]", re.DOTALL)
_MARKS_OF_A_VALUE = 4  # its key, the string or the two brackets that it is, and the comma behind it


def canonical_json(obj: Any) -> bytes:
    """The one UTF-8 encoding of a JSON value: sorted keys, no spaces, shortest floats.

    Raises:
        ValueError: NaN or infinity, a key that is no string, text with a lone surrogate.
        TypeError: something that JSON does not know.
    """
    _refuse_odd_keys(obj)
    text = json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _refuse_odd_keys(obj: Any) -> None:
    """``json.dumps`` writes the key 1 as "1": two different values would get the same bytes."""
    if isinstance(obj, Mapping):
        for key, value in obj.items():
            if not isinstance(key, str):
                raise ValueError(f"the key {shorten(key)} is no string")
            _refuse_odd_keys(value)
    elif isinstance(obj, Sequence) and not isinstance(obj, str | bytes):
        for value in obj:
            _refuse_odd_keys(value)


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lowercase hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(obj: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return sha256_hex(canonical_json(obj))


def strict_loads(data: bytes, *, max_bytes: int, max_depth: int = 32, max_values: int | None = None) -> Any:
    """Parse JSON that may be hostile.

    Refused: more than ``max_bytes`` bytes, other than UTF-8, nesting deeper than ``max_depth``, more than
    ``max_values`` values (None: any number), a key twice in one object, NaN and infinities (``1e999`` too),
    integers beyond +-2**63, lone surrogates, anything after the value.

    Raises:
        ValueError: with a reason in plain words.
    """
    if len(data) > max_bytes:
        raise ValueError(f"{len(data)} bytes are more than the {max_bytes} allowed")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark; save it as plain UTF-8")
    _check_depth(text, max_depth, max_values)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite_float,
            parse_int=_bounded_int,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    if "\\ud" in text.casefold():
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("text with half a surrogate pair") from None
    return value


def _check_depth(text: str, max_depth: int, max_values: int | None) -> None:
    """Refuse what would take long before it is parsed; of values, commas and opening brackets are counted."""
    depth, values, most = 0, 1, len(text) + 1 if max_values is None else max_values
    scan = _STRING_OR_BRACKET if max_values is None else _STRING_OR_MARK
    for count, match in enumerate(scan.finditer(text), 1):
        first = text[match.start()]
        if first in "[{":
            depth += 1
            values += 1
            if depth > max_depth:
                raise ValueError(f"nested deeper than the {max_depth} levels allowed")
        elif first in "]}":
            depth -= 1
        elif first == ",":
            values += 1
        if values > most or count > _MARKS_OF_A_VALUE * most:
            raise ValueError(f"more than the {max_values} values allowed")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise ValueError(f"the key {shorten(twice)} appears twice in one object")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shorten(text, 24)} is too large")
    return value


def _bounded_int(text: str) -> int:
    # The length first: turning thousands of digits into a number is slow.
    if len(text) > 20 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"the integer {shorten(text, 24)} is beyond 2**63")
    return int(text)


def write_atomic(path: Path | str, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, also after a power cut, sees the old file or the new one.

    Raises:
        ResourceError: the disk is full; the old file is untouched.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        # Not tempfile: its 0600 would survive the rename and lock out whoever the folder is shared with.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise disk_error(error, path, len(data)) from error
    finally:
        temporary.unlink(missing_ok=True)


def fsync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_error(error: OSError, path: Path, needed: int) -> Exception:
    """The error to raise for a failed write: ResourceError with the bytes needed when the disk is full."""
    if error.errno in _DISK_FULL:
        return ResourceError(
            f"no room for {path}: {needed} bytes needed ({os.strerror(error.errno)}). "
            "Free some space and run the same command again; nothing written before is lost."
        )
    return error
