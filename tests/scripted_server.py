"""An OpenAI-compatible chat server on a real socket: does what a test tells it to, remembers what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from claspkit.router.template import letters


@dataclass
class Asked:
    """One request: its path, its headers (lower case) and its JSON body."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


Act = Callable[[BaseHTTPRequestHandler, Asked], None]
"""What the server does with a request."""


def send(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Act:
    """Answer with these bytes."""

    def act(handler: BaseHTTPRequestHandler, _: Asked) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return act


def send_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Act:
    """Answer with a JSON value."""
    return send(status, json.dumps(value).encode(), headers)


def wrote(text: str | None) -> dict[str, Any]:
    """The body of an answer in which the model wrote ``text``."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def scored(shares: Mapping[str, float]) -> dict[str, Any]:
    """The body of an answer with these log-probabilities of the first token."""
    likeliest = [{"token": token, "logprob": value, "bytes": None} for token, value in shares.items()]
    content = [{"token": "A", "logprob": -0.1, "top_logprobs": likeliest}]
    message = {"role": "assistant", "content": "A"}
    return {"choices": [{"index": 0, "message": message, "logprobs": {"content": content}}]}


def drop(handler: BaseHTTPRequestHandler, _: Asked) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def cut_short(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    """Promise a hundred bytes, send one."""
    send(200, b"{", {"Content-Length": "100"})(handler, asked)


def answer(handler: BaseHTTPRequestHandler, asked: Asked) -> None:
    """A well-behaved server: every prompt is about counting, whichever way it is asked."""
    letter = letters()[8]
    found = scored({letter: -0.5}) if asked.body.get("logprobs") else wrote('{"intent": "object_counting"}')
    send_json(found)(handler, asked)


@dataclass
class Server:
    """A running server.

    Attributes:
        url: its address, as --router-endpoint takes it.
        script: what it does with the next requests, in order; afterwards ``otherwise``.
        otherwise: what it does with every further request.
        asked: what it was asked.
        released: set when the test is over; ``hang`` waits for it.
    """

    url: str = ""
    script: list[Act] = field(default_factory=list)
    otherwise: Act = answer
    asked: list[Asked] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hang(self, _: BaseHTTPRequestHandler, __: Asked) -> None:
        """Say nothing until the test is over."""
        self.released.wait(60)

    def take(self, asked: Asked) -> Act:
        """Remember a request; returns what is to be done with it."""
        with self.lock:
            self.asked.append(asked)
            return self.script.pop(0) if self.script else self.otherwise


@contextmanager
def running() -> Iterator[Server]:
    """Run a server on a free port of this machine."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.path, headers, json.loads(data))
            server.take(asked)(self, asked)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    class Sockets(ThreadingHTTPServer):
        """Does not complain about clients that have gone."""

        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: object, client_address: object) -> None:
            """Keep quiet."""

    with Sockets(("127.0.0.1", 0), Handler) as sockets:
        thread = threading.Thread(target=sockets.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{sockets.server_address[1]}/v1"
        try:
            yield server
        finally:
            server.released.set()
            sockets.shutdown()
            thread.join()
