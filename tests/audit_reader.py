"""Run as a process of its own: reads hostile profiles and says which files that opened, in JSON.

An audit hook cannot be taken off again, hence the process. It hears of every file that Python opens or lists, also from
C, and of sockets, processes and modules that are imported.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from broken_rows import Row, valid
from test_profiles_broken import ROWS

from claspkit.profiles.canonical import sha256_hex
from claspkit.profiles.errors import ClaspError
from claspkit.profiles.files import read_profile, read_router_file

FILES = {"open", "os.listdir", "os.scandir", "os.chdir", "os.rename", "os.remove", "os.mkdir", "os.symlink", "os.link"}
BEYOND = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ctypes.", "import", "exec")


class Watch:
    """What happened between :meth:`start` and :meth:`stop`.

    Attributes:
        files: real paths of what was opened or listed.
        beyond: every other event that a reader has no business with.
    """

    def __init__(self) -> None:
        self.files: list[str] = []
        self.beyond: list[str] = []
        self._on = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in FILES and not isinstance(arguments[0], int):
            self.files.append(os.path.realpath(os.fsdecode(arguments[0])))
        elif event.startswith(BEYOND):
            self.beyond.append(f"{event} {str(arguments[:1])[:80]}")

    def during(self, work: Callable[[], object]) -> str:
        """Do the work and say how it ended: "done", or the name of our error."""
        self._on = True
        try:
            work()
            return "done"
        except ClaspError as error:
            return type(error).__name__
        finally:
            self._on = False


def router_cases(folder: Path, outside: Path) -> Iterator[str]:
    """Lay out profile folders whose router's file is not what it seems; yields what each is."""
    fields = valid("student")
    secret = b"weights"
    outside.write_bytes(secret)
    sealed = Row("student", "router.sha256", sha256_hex(secret), "").text()
    name = fields["router"]["file"]
    target = folder / name
    for what, make in {
        "a link out": lambda: target.symlink_to(outside),
        "a link to a device": lambda: target.symlink_to("/dev/zero"),
        "a link out through a folder": lambda: target.symlink_to(folder / ".." / outside.name),
        "a link to the folder above": lambda: target.symlink_to(".."),
        "a link to itself": lambda: target.symlink_to(name),
        "a link to nothing": lambda: target.symlink_to("nothing"),
        "a pipe": lambda: os.mkfifo(target),
        "a folder": target.mkdir,
        "absent": lambda: None,
    }.items():
        (folder / "profile.json").write_text(sealed)
        make()
        yield what
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink(missing_ok=True)


def main(root: Path) -> dict[str, Any]:
    """Read everything; ``root`` holds nothing yet."""
    folder, outside = root / "profile", root / "outside"
    folder.mkdir()
    with suppress(ClaspError):
        (folder / "profile.json").write_text(Row("plain", "format", None, "").text())
        read_profile(folder)  # what is loaded at the first call is loaded now
    watch = Watch()
    ends: dict[str, int] = {}
    for row in ROWS:
        (folder / "profile.json").write_text(row.text())
        end = watch.during(lambda: read_profile(folder))
        ends[end] = ends.get(end, 0) + 1
    routers = {}
    for what in router_cases(folder, outside):
        routers[what] = watch.during(lambda: read_router_file(read_profile(folder).router, folder))
    strayed = sorted({path for path in watch.files if not Path(path).is_relative_to(folder.resolve())})
    seen, beyond = len(watch.files), sorted(set(watch.beyond))
    watch.during(lambda: (outside.read_bytes(), os.listdir("/"), __import__("colorsys")))
    planted = [path for path in watch.files[seen:] if path in {str(outside.resolve()), "/"}]
    found = {"ends": ends, "routers": routers, "opened": seen, "strayed": strayed, "beyond": beyond}
    return found | {"planted": sorted(set(planted)), "planted_import": len(set(watch.beyond)) > len(beyond)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
