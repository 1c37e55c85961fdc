"""The local server of ``claspkit demo``: this machine only, one page, no path of a request ever opened.

A page of somebody else's may make a browser send requests here. So the Host must be this server's own (no DNS
rebinding), a POST must come from its own page (Origin) and carry a type that a form cannot send.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from claspkit.profiles.canonical import strict_loads
from claspkit.profiles.errors import BadDataError, ClaspError, UsageError

from .demo import MAX_UPLOAD, BusyError, Demo
from .demo_page import render_page

HOST: Final = "127.0.0.1"
MAX_QUESTION: Final = 256 * 1024
"""Bytes of a question, at most."""

_EXAMPLE = re.compile(r"/examples/(\d{1,3})")
_LENGTH = re.compile(r"\d{1,12}")
_SECURE = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class DemoServer(ThreadingHTTPServer):
    """Serves one :class:`.demo.Demo` on 127.0.0.1; threads only so that an idle connection holds nobody up."""

    daemon_threads = True

    def __init__(self, demo: Demo, port: int) -> None:
        """Bind to ``port``, 0 for any free one.

        Raises:
            UsageError: the port is taken or not allowed.
        """
        self.demo = demo
        try:
            super().__init__((HOST, port), DemoHandler)
        except OSError as error:
            raise UsageError(
                f"cannot listen on {HOST}, port {port}: {error.strerror}; give --port another number, 0 for any"
            ) from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; anything else is shown with its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        """Where a browser finds the page."""
        return f"http://{HOST}:{self.server_port}/"


class DemoHandler(BaseHTTPRequestHandler):
    """One request."""

    server: DemoServer
    timeout = 30.0  # seconds for a client to send what it announced
    server_version, sys_version = "claspkit", ""

    def do_GET(self) -> None:
        """The page, or the picture of an example."""
        if not self._host_is_ours():
            return
        match = _EXAMPLE.fullmatch(self.path)
        picture = self.server.demo.example(int(match[1])) if match else None
        if self.path == "/":
            nonce = secrets.token_urlsafe(16)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
                "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            )
            page = render_page(self.server.demo.facts(), nonce).encode()
            self._send(200, "text/html; charset=utf-8", page, {"Content-Security-Policy": policy})
        elif picture is not None:
            self._send(200, "image/png", picture)
        else:
            self._fail(404, "there is nothing here; the page is at /")

    def do_POST(self) -> None:
        """A picture to remember, or a question to answer."""
        if not self._host_is_ours():
            return
        if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            self._fail(403, "only this server's own page may ask")
            return
        routes: dict[str, tuple[str, int, Callable[[bytes], dict[str, Any]]]] = {
            "/upload": ("application/octet-stream", MAX_UPLOAD, self._upload),
            "/ask": ("application/json", MAX_QUESTION, self._ask),
        }
        if self.path not in routes:
            self._fail(404, "there is nothing here; pictures go to /upload and questions to /ask")
            return
        kind, limit, answer = routes[self.path]
        data = self._body(kind, limit)
        if data is None:
            return
        try:
            found = answer(data)
        except BusyError as error:
            self._fail(503, str(error))
        except BadDataError as error:
            self._fail(400, str(error))
        except ClaspError as error:  # of the profile or its router; the page shows it
            self._fail(500, str(error))
        except Exception:
            self._fail(500, "this should not have happened; the terminal of the demo says more")
            raise
        else:
            self._send(200, "application/json", json.dumps(found).encode())

    def _upload(self, data: bytes) -> dict[str, Any]:
        return {"picture": self.server.demo.upload(data)}

    def _ask(self, data: bytes) -> dict[str, Any]:
        try:
            question = strict_loads(data, max_bytes=MAX_QUESTION, max_depth=4)
        except ValueError as error:
            raise BadDataError(str(error)) from None
        if not isinstance(question, dict):
            raise BadDataError("a question is one JSON object")
        return self.server.demo.ask(question)

    def _host_is_ours(self) -> bool:
        port = self.server.server_port
        if self.headers.get("Host") in {f"{HOST}:{port}", f"localhost:{port}"}:
            return True
        self._fail(403, f"this server answers to {HOST}:{port} and localhost:{port} only")
        return False

    def _body(self, kind: str, limit: int) -> bytes | None:
        """The body, None after an answer that says why not."""
        length = self.headers.get("Content-Length", "")
        if self.headers.get("Content-Type") != kind:
            self._fail(415, f"the body must be {kind}")
        elif self.headers.get("Transfer-Encoding") is not None or not _LENGTH.fullmatch(length):
            self._fail(411, "the body must come with its length")
        elif int(length) > limit:
            self._fail(413, f"{length} bytes, {limit} are allowed")
        else:
            try:
                data = self.rfile.read(int(length))
            except TimeoutError:
                self._fail(408, "the body did not arrive in time")
                return None
            if len(data) == int(length):
                return data
            self._fail(400, "the body is shorter than announced")
        return None

    def _fail(self, code: int, reason: str) -> None:
        self._send(code, "application/json", json.dumps({"error": reason}).encode())

    def _send(self, code: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {**_SECURE, **(more or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the page itself shows what went wrong."""
