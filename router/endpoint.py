"""The address of a labelling server, checked before anything is sent or written down."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from claspkit.profiles.errors import UsageError

_CHAT = "/chat/completions"
_EXAMPLE = "such as http://localhost:8000/v1 or https://host/v1"


def check_endpoint(url: str) -> str:
    """The address in one form: scheme, host, port and the path before ``/chat/completions``, ``/v1`` if it has none.

    Raises:
        UsageError: it is no http address, or holds a user, a password or a query; the text does not repeat it.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"--router-endpoint cannot be read as an address; give one {_EXAMPLE}") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"--router-endpoint holds a space or a special character; give one {_EXAMPLE}")
    if parts.username is not None or parts.password is not None or "?" in url or "#" in url:
        raise UsageError(
            "--router-endpoint must be an address without user, password or query: it is written into the run folder. "
            f"Put the key into the environment (--router-key-env) and give an address {_EXAMPLE}"
        )
    if parts.scheme not in {"http", "https"} or not host:
        raise UsageError(f"--router-endpoint needs http:// or https:// and a host; give one {_EXAMPLE}")
    path = parts.path.rstrip("/").removesuffix(_CHAT).rstrip("/") or "/v1"
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{path}"


def chat_url(endpoint: str) -> str:
    """Where chat requests go."""
    return endpoint + _CHAT


def is_local(url: str) -> bool:
    """Whether requests stay on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
