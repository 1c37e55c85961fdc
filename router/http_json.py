"""JSON over HTTP with patience: a body is posted, asked again while the server is busy, and the answer is checked.

Nothing but the standard library. Redirects are not followed, so that prompts and key go where they were sent.
"""

from __future__ import annotations

import json
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from threading import Event
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

from claspkit.profiles.canonical import strict_loads
from claspkit.profiles.errors import BadDataError, Interrupted, ResourceError, UsageError

from .api_key import ApiKey
from .endpoint import is_local

MAX_BYTES = 4 * 2**20  # of an answer; those asked for have some kB
_PIECE = 65536
_SHOWN = 200  # characters of what the server says


@dataclass(frozen=True)
class Patience:
    """How long an endpoint is waited for.

    Attributes:
        timeout: seconds for one try, from connecting to the last byte.
        tries: requests sent at most.
        first: seconds before the second try; doubled for each further one.
        longest: seconds before a try at most, also where the server asks for more.
    """

    timeout: float = 120.0
    tries: int = 6
    first: float = 1.0
    longest: float = 60.0


class RefusedError(UsageError):
    """The server understood and said no.

    Attributes:
        status: HTTP status.
        reason: what the server said, shortened.
    """

    def __init__(self, text: str, status: int, reason: str) -> None:
        super().__init__(text)
        self.status = status
        self.reason = reason


class JsonClient:
    """Posts JSON to one address; may be used by many threads.

    Args:
        url: where to.
        key: sent as a bearer token; None sends none.
        patience: times and counts.
        pause: waits that many seconds; by default until then or until ``stop`` of :meth:`post` is set.
        draw: a number from 0 to 1, for the jitter of the waits.

    Raises:
        UsageError: a key, and an address that would carry it over a network in clear text.
    """

    def __init__(
        self,
        url: str,
        key: ApiKey | None = None,
        patience: Patience | None = None,
        *,
        pause: Callable[[float], object] | None = None,
        draw: Callable[[], float] | None = None,
    ) -> None:
        local = is_local(url)
        if key is not None and not local and urlsplit(url).scheme != "https":
            raise UsageError(
                "the key would go to another machine in clear text: give an https:// endpoint, or send no key "
                '(--router-key-env "")'
            )
        self._url, self._key = url, key
        self._host = urlsplit(url).netloc
        self._patience = patience or Patience()
        self._pause, self._draw = pause, draw or random.Random().random
        self._opener = OpenerDirector()
        self._opener.addheaders = [("User-Agent", "claspkit")]
        # A proxy has no business between two programs on one machine, and would see the key.
        for handler in (ProxyHandler({} if local else None), HTTPHandler(), HTTPSHandler()):
            self._opener.add_handler(handler)

    def post(self, body: Any, stop: Event | None = None) -> Any:
        """Post a JSON value; returns the JSON value that came back.

        Statuses 408, 429 and 5xx, timeouts, dropped connections and answers that are no JSON are tried again.

        Args:
            body: what to send.
            stop: once set, waiting ends and nothing more is sent.

        Raises:
            RefusedError: the server refuses the request: key, model or address are wrong.
            ResourceError: no usable answer within the tries.
            BadDataError: an answer longer than MAX_BYTES.
            Interrupted: ``stop`` was set.
        """
        data = json.dumps(body).encode("ascii")
        stop = stop or Event()
        asked, last = 0.0, ""
        for number in range(self._patience.tries):
            if number:
                self._wait(number, asked, stop)
            if stop.is_set():
                raise Interrupted("labelling was stopped; the same command goes on")
            try:
                status, wait, raw = self._send(data)
            except (OSError, HTTPException) as error:
                asked, last = 0.0, self._broken(error)
                continue
            if status in {408, 429} or status >= 500:
                asked, last = wait, f"HTTP {status} {self._reason(raw)}".strip()
            elif status != 200:
                raise self._refused(status, self._reason(raw))
            else:
                try:
                    return strict_loads(raw, max_bytes=MAX_BYTES)
                except ValueError as error:
                    asked, last = 0.0, self._hidden(f"an answer that cannot be read, {error}")
        raise ResourceError(
            f"the labelling server {self._host} gave no answer in {self._patience.tries} tries, the last: {last}. "
            "Look whether it runs, is this address (--router-endpoint) and is not overloaded (--router-concurrency); "
            "then run the same command again: what is labelled is kept."
        )

    def _send(self, data: bytes) -> tuple[int, float, bytes]:
        """One try: (status, seconds the server asks to wait, body)."""
        request = Request(self._url, data=data, method="POST")
        request.add_header("Content-Type", "application/json")
        if self._key is not None:
            request.add_unredirected_header("Authorization", self._key.header())
        end = time.monotonic() + self._patience.timeout
        response: HTTPResponse
        with self._opener.open(request, timeout=self._patience.timeout) as response:
            return response.status, _retry_after(response.headers.get("Retry-After")), self._read(response, end)

    def _read(self, response: HTTPResponse, end: float) -> bytes:
        pieces, size = [], 0
        while piece := response.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BYTES:
                raise BadDataError(
                    f"the labelling server {self._host} sends more than the {MAX_BYTES} bytes that an answer may have; "
                    "is --router-endpoint an OpenAI-compatible chat endpoint?"
                )
            if time.monotonic() > end:  # a timeout of the socket alone would let single bytes drip for ever
                raise TimeoutError("the answer took too long")
        if response.length:
            raise ConnectionError(f"the connection ended {response.length} bytes before the answer did")
        return b"".join(pieces)

    def _wait(self, number: int, asked: float, stop: Event) -> None:
        """Wait before try ``number`` (from 1): as long as asked, or a doubling time of which half is drawn."""
        grown = self._patience.first * 2 ** (number - 1) * (0.5 + 0.5 * self._draw())
        (self._pause or stop.wait)(min(self._patience.longest, max(asked, grown)))

    def _broken(self, error: OSError | HTTPException) -> str:
        """What a failed connection is called; UsageError where trying again cannot help."""
        cause = error.reason if isinstance(error, URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise UsageError(f"the certificate of {self._host} is not trusted: {cause.verify_message}") from error
        if isinstance(cause, TimeoutError):
            return f"no answer within {self._patience.timeout:g} s"
        return self._hidden(f"{type(cause).__name__}: {cause}")

    def _reason(self, raw: bytes) -> str:
        """What the server says about an error: its message, or the start of whatever it sent."""
        text = raw.decode("utf-8", "replace")
        try:
            found = strict_loads(raw, max_bytes=MAX_BYTES)
            inner = found.get("error", found)
            message = inner.get("message", inner.get("detail")) if isinstance(inner, dict) else inner
            text = message if isinstance(message, str) else json.dumps(found)
        except (ValueError, AttributeError):
            pass
        return self._hidden(text)

    def _hidden(self, text: str) -> str:
        """Text from outside, fit for a message: one printable line without the key, shortened after that."""
        safe = text if self._key is None else self._key.hide(text)
        return "".join(letter if letter.isprintable() else " " for letter in " ".join(safe.split()))[:_SHOWN]

    def _refused(self, status: int, reason: str) -> RefusedError:
        if 300 <= status < 400:
            todo = "it points elsewhere, which is not followed; give the final address as --router-endpoint"
        elif status in {401, 403}:
            todo = "it wants another key; put one into OPENAI_API_KEY, or into the variable of --router-key-env"
        elif status == 404:
            todo = "it knows no such address or model; compare --router-endpoint and --router-model with what it serves"
        else:
            todo = "compare --router-model and --router-mode with what it can do"
        said = f" ({reason})" if reason else ""
        return RefusedError(f"the labelling server {self._host} answers HTTP {status}{said}: {todo}", status, reason)


def _retry_after(value: str | None) -> float:
    """Seconds of a Retry-After header, which holds a number or a date; 0 for none, for the past and for nonsense."""
    if not value:
        return 0.0
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
