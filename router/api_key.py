"""The key of a labelling endpoint: read from the environment, and shown nowhere."""

from __future__ import annotations

import os
import re

from claspkit.profiles.errors import UsageError

DEFAULT_VARIABLE = "OPENAI_API_KEY"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HIDDEN = "***"


class ApiKey:
    """A secret that leaves this object in one header only.

    Args:
        value: printable ASCII without spaces.
    """

    def __init__(self, value: str) -> None:
        self.__value = value

    def header(self) -> str:
        """The value of the Authorization header."""
        return f"Bearer {self.__value}"

    def hide(self, text: str) -> str:
        """``text`` without the key: servers repeat it in what they say about it."""
        return text.replace(self.__value, _HIDDEN)

    def __repr__(self) -> str:
        return f"ApiKey({_HIDDEN})"

    def __reduce__(self) -> str:
        raise TypeError("a key is not written anywhere")


def read_key(variable: str | None) -> ApiKey | None:
    """The key in an environment variable.

    Args:
        variable: its name; None for OPENAI_API_KEY, which need not be set; "" for no key.

    Raises:
        UsageError: the variable asked for is not set, or what it holds cannot be a key. No text names either: a key
            typed in place of a variable's name must not come back on the screen.
    """
    if variable == "":
        return None
    if variable is not None and not _NAME.fullmatch(variable):
        raise UsageError("--router-key-env takes the name of an environment variable, such as MY_KEY, not a key")
    value = os.environ.get(DEFAULT_VARIABLE if variable is None else variable, "").strip()
    if not value:
        if variable is None:
            return None
        raise UsageError("the environment variable that --router-key-env names is not set; set it, or name another")
    if not all("!" <= letter <= "~" for letter in value):
        raise UsageError("the key in the environment holds a space or a character beyond ASCII; set it anew")
    return ApiKey(value)
