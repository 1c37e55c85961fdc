"""``claspkit verify``: is a profile folder that was made elsewhere what its list of digests says, and can it be used?

The folder is opened once and every file relative to it, by a plain name and never through a link: nothing outside is
opened, and a folder that is exchanged meanwhile changes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from claspkit.profiles.canonical import sha256_hex, strict_loads
from claspkit.profiles.errors import ClaspError, CorruptError, UsageError, shorten
from claspkit.profiles.files import FILE_NAME, MAX_ROUTER_BYTES, SCHEMA_ID
from claspkit.profiles.profile import MAX_BYTES, Profile, parse_profile
from claspkit.router.route import router_backend
from claspkit.router.student import StudentBackend

from .export import ATTRIBUTES, CARD, SCHEMA, SUMS, published_schema

MAX_FILES: Final = 64
_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9.][A-Za-z0-9._-]{0,127})")
_PLAIN = re.compile(r"[\w.-]{1,128}")
_LEFT_ALONE = {".cache", ".git"}  # what download tools keep beside what they fetched
_NEEDED = (FILE_NAME, SCHEMA, CARD)
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FolderError(CorruptError):
    """One thing that is wrong with one file of a folder.

    Attributes:
        file: its name.
        reason: what is wrong.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass
class Verified:
    """What was found in a folder.

    Attributes:
        files: name -> (bytes, sha256) of every file that was read.
        profile: the profile, None where it cannot be read.
        problems: everything that is wrong, in the order of the checks; empty for a folder that can be used.
    """

    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    profile: Profile | None = None
    problems: list[FolderError] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "ok": not self.problems,
            "profile_id": None if self.profile is None else self.profile.profile_id,
            "files": [{"name": name, "bytes": size, "sha256": sha} for name, (size, sha) in self.files.items()],
            "problems": [{"file": problem.file, "reason": problem.reason} for problem in self.problems],
        }


def verify_folder(folder: Path) -> Verified:
    """Check a profile folder: its list of digests, every file in it, schema, profile, router and card.

    Returns:
        What was found; a damaged folder is no exception.

    Raises:
        UsageError: there is no such folder.
    """
    found = Verified()
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot open the folder {folder}: {error.strerror}; claspkit export writes one") from None
    try:
        contents = _read_all(handle, found)
    finally:
        os.close(handle)
    _check_sums(contents, found)
    for name in _NEEDED:
        if name not in contents and not any(problem.file == name for problem in found.problems):
            found.problems.append(FolderError(name, "it is missing; export the profile again"))
    if FILE_NAME in contents:
        with _problems(found, FILE_NAME):
            found.profile = parse_profile(contents[FILE_NAME])
    if SCHEMA in contents:
        with _problems(found, SCHEMA):
            _check_schema(contents[SCHEMA])
    if found.profile is not None:
        _check_router(found.profile, contents, found)
        if CARD in contents and found.profile.profile_id.encode() not in contents[CARD]:
            found.problems.append(FolderError(CARD, "it does not name this profile's id: it is another profile's card"))
    return found


@contextmanager
def _problems(found: Verified, name: str) -> Iterator[None]:
    """Turn an error about the file ``name`` into a problem of the folder."""
    try:
        yield
    except ClaspError as error:
        found.problems.append(error if isinstance(error, FolderError) else FolderError(name, str(error)))


def _read_all(handle: int, found: Verified) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    names = sorted(os.listdir(handle))
    for name in names[:MAX_FILES]:
        shown = name if _PLAIN.fullmatch(name) else shorten(name)  # a name may hold anything but a slash
        with _problems(found, shown):
            data = _read(handle, name, shown)
            if data is not None:
                contents[shown] = data
                found.files[shown] = (len(data), sha256_hex(data))
    if len(names) > MAX_FILES:
        found.problems.append(FolderError(shorten(names[MAX_FILES]), f"{len(names)} entries, {MAX_FILES} are allowed"))
    return contents


def _read(handle: int, name: str, shown: str) -> bytes | None:
    """A file's bytes; None for a folder that a download tool made."""
    limit = MAX_ROUTER_BYTES if name.endswith(".safetensors") else MAX_BYTES
    try:
        mode = os.lstat(name, dir_fd=handle).st_mode
        if stat.S_ISDIR(mode) and name in _LEFT_ALONE:
            return None
        if stat.S_ISLNK(mode):
            raise FolderError(shown, "it is a link, which is not followed; copy the folder with cp -rL")
        if stat.S_ISDIR(mode):
            raise FolderError(shown, "it is a folder; a profile folder holds files only")
        if not stat.S_ISREG(mode):
            raise FolderError(shown, "it is no plain file")
        with os.fdopen(os.open(name, _OPEN, dir_fd=handle), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # exchanged since it was looked at
                raise FolderError(shown, "it is no plain file")
            data = file.read(limit + 1)
    except OSError as error:
        raise FolderError(shown, f"it cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise FolderError(shown, f"it is larger than the {limit} bytes allowed")
    return data


def _check_sums(contents: dict[str, bytes], found: Verified) -> None:
    """Every listed file is there with its digest, and no file is there that is not listed."""
    if SUMS not in contents:
        if not any(problem.file == SUMS for problem in found.problems):
            found.problems.append(FolderError(SUMS, "it is missing, so nothing says what the files should be"))
        return
    listed: dict[str, str] = {}
    for number, line in enumerate(contents[SUMS].decode("utf-8", "replace").splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None or match[2] in {".", "..", SUMS}:
            found.problems.append(FolderError(SUMS, f"line {number} is no digest and file name: {shorten(line)}"))
        elif match[2] in listed:
            found.problems.append(FolderError(SUMS, f"line {number} lists {match[2]} again"))
        else:
            listed[match[2]] = match[1]
    known = {problem.file for problem in found.problems}  # such a file has its own reason already
    for name, digest in listed.items():
        if name in found.files and found.files[name][1] != digest:
            got = found.files[name][1]
            found.problems.append(FolderError(name, f"its digest is {got[:12]}..., {SUMS} says {digest[:12]}..."))
        elif name not in found.files and name not in known:
            found.problems.append(FolderError(name, f"{SUMS} lists it, and it is missing"))
    for name in sorted(found.files.keys() - listed.keys() - {SUMS, ATTRIBUTES}):  # a hub may write its own attributes
        found.problems.append(FolderError(name, f"{SUMS} does not list it"))


def _check_schema(data: bytes) -> None:
    try:
        schema = strict_loads(data, max_bytes=MAX_BYTES)
    except ValueError as error:
        raise FolderError(SCHEMA, str(error)) from None
    identity = schema.get("$id") if isinstance(schema, dict) else None
    family, _, version = SCHEMA_ID.rpartition(":")
    if not isinstance(identity, str) or not re.fullmatch(re.escape(family) + r":1\.(0|[1-9][0-9]{0,3})", identity):
        raise FolderError(SCHEMA, f"its $id is {shorten(identity)}, not {family}:1.N")
    if identity == SCHEMA_ID and schema != strict_loads(published_schema(), max_bytes=MAX_BYTES):
        raise FolderError(SCHEMA, f"it calls itself version {version} and is another schema than that version's")


def _check_router(profile: Profile, contents: dict[str, bytes], found: Verified) -> None:
    """The student is there, has the profile's digest and can be built; rules are those of this version."""
    router = profile.router
    name = router.file or FILE_NAME
    with _problems(found, name):
        if router.file is None:
            router_backend(router, None, profile.read_taxonomy())
            return
        if router.file not in contents:
            if any(problem.file == name for problem in found.problems):
                return
            raise FolderError(name, "the profile routes by it, and it is missing")
        if sha256_hex(contents[name]) != router.sha256:
            raise FolderError(name, "it is not the router that the profile names in router.sha256")
        StudentBackend.from_bytes(contents[name], profile.read_taxonomy())
