"""What a command leaves where its user pointed: a file, and the frame of a page that opens from disk."""

from __future__ import annotations

from pathlib import Path

from claspkit.profiles.canonical import write_atomic
from claspkit.profiles.errors import UsageError


def write_named(path: Path, data: bytes, option: str) -> None:
    """Write a file that ``option`` named, whole or not at all.

    Raises:
        UsageError: it cannot be written.
        ResourceError: the disk is full.
    """
    try:
        write_atomic(path, data)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}); give {option} a file in a folder that is"
        ) from None


def html_page(title: str, style: str, body: str, *, pictures: bool = False) -> str:
    """A page of its own: light and dark, phone width, and a policy that lets it fetch and run nothing.

    Args:
        title: escaped.
        style: CSS.
        body: HTML.
        pictures: whether it holds pictures as data; others are not fetched in any case.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'" + ("; img-src data:" if pictures else "")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}</body>
</html>
"""
