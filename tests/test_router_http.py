"""Talking to a labelling server: patience with a busy one, plain words about a wrong one, and a key nobody sees."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from threading import Event

import pytest
from scripted_server import Act, Server, cut_short, drop, running, send, send_json

from claspkit.profiles.errors import BadDataError, ClaspError, Interrupted, ResourceError, UsageError
from claspkit.router.api_key import ApiKey, read_key
from claspkit.router.endpoint import chat_url, check_endpoint, is_local
from claspkit.router.http_json import MAX_BYTES, JsonClient, Patience, RefusedError

SECRET = "sk-very-secret-0123456789"
FINE = send_json({"fine": True})


@pytest.fixture
def server() -> Iterator[Server]:
    """A server of its own for each test."""
    with running() as made:
        made.otherwise = FINE
        yield made


def client(
    server: Server, pauses: list[float] | None = None, *, timeout: float = 30, tries: int = 6, key: str | None = None
) -> JsonClient:
    """A client that writes down its pauses instead of making them, and draws the largest jitter."""
    waits: list[float] = [] if pauses is None else pauses
    return JsonClient(
        chat_url(server.url),
        ApiKey(key) if key else None,
        Patience(timeout=timeout, tries=tries),
        pause=waits.append,
        draw=lambda: 1.0,
    )


def test_a_value_goes_there_and_one_comes_back(server: Server) -> None:
    """One POST of JSON to the chat address, nothing in the address."""
    assert client(server).post({"a": ["ü", 1]}) == {"fine": True}
    (asked,) = server.asked
    assert (asked.path, asked.body) == ("/v1/chat/completions", {"a": ["ü", 1]})
    assert asked.headers["content-type"] == "application/json"
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (send_json({"error": {"message": "slow down"}}, 429), "HTTP 429 slow down"),
        (send(500, b"<html>oops</html>"), "HTTP 500 <html>oops</html>"),
        (send(503, b""), "HTTP 503"),
        (drop, "RemoteDisconnected"),
        (cut_short, "ended 99 bytes before"),
        (send(200, b"I am no JSON"), "an answer that cannot be read, not JSON"),
        (send(200, b'{"a": NaN}'), "NaN is no JSON number"),
    ],
)
def test_what_may_pass_is_tried_again(server: Server, act: Act, said: str) -> None:
    """Twice is forgiven; for ever is an error that says what came last."""
    pauses: list[float] = []
    server.script = [act, act]
    assert client(server, pauses).post({}) == {"fine": True}
    assert pauses == [1, 2]
    server.otherwise = act
    pauses.clear()
    with pytest.raises(ResourceError, match=f"no answer in 6 tries, the last: .*{said}.*--router-endpoint"):
        client(server, pauses).post({})
    assert pauses == [1, 2, 4, 8, 16]
    assert len(server.asked) == 9


def test_pauses_have_jitter_and_a_longest(server: Server) -> None:
    """Half of a pause is drawn, and none is longer than allowed."""
    server.otherwise = send(500, b"")
    pauses: list[float] = []
    asking = JsonClient(chat_url(server.url), None, Patience(longest=5.0), pause=pauses.append, draw=lambda: 0.0)
    with pytest.raises(ResourceError):
        asking.post({})
    assert pauses == [0.5, 1, 2, 4, 5]


def test_the_server_says_how_long_to_wait(server: Server) -> None:
    """Retry-After in seconds and as a date, honoured up to the longest pause; nonsense is no wish."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(days=1))
    wishes = ["7", "100000", soon, past, "tomorrow", "-5", "9" * 400]
    server.script = [send(429, b"", {"Retry-After": wish}) for wish in wishes]
    pauses: list[float] = []
    assert client(server, pauses, tries=9).post({}) == {"fine": True}
    assert pauses[:2] == [7, 60]
    assert 20 < pauses[2] <= 30
    assert pauses[3:] == [8, 16, 32, 60]


def test_a_hanging_server_is_given_up(server: Server) -> None:
    """Nothing for as long as is waited: another try, then an error with the time."""
    server.script = [server.hang, server.hang]
    with pytest.raises(ResourceError, match=r"in 2 tries, the last: no answer within 0\.2 s"):
        client(server, timeout=0.2, tries=2).post({})
    assert client(server).post({}) == {"fine": True}


def test_a_server_that_drips_is_given_up(server: Server) -> None:
    """Bytes that keep coming, each in time, do not make an answer that never ends."""

    def drip(handler, _) -> None:  # type: ignore[no-untyped-def]
        handler.send_response(200)
        handler.end_headers()
        while not server.released.wait(0.02):
            handler.wfile.write(b" ")

    server.otherwise = drip
    with pytest.raises(ResourceError, match="no answer within"):
        client(server, timeout=0.3, tries=1).post({})


def test_a_huge_answer_is_not_read(server: Server) -> None:
    """Reading stops at the limit, and nothing is tried again."""
    server.script = [send(200, b" " * (MAX_BYTES + 1))]
    with pytest.raises(BadDataError, match=f"more than the {MAX_BYTES} bytes"):
        client(server).post({})
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "todo"),
    [
        (401, "another key.*OPENAI_API_KEY"),
        (403, "another key"),
        (404, "no such address or model.*--router-model"),
        (400, "--router-model and --router-mode"),
        (422, "--router-model"),
        (302, "give the final address"),
        (307, "give the final address"),
    ],
)
def test_a_refusal_is_final_and_says_what_to_do(server: Server, status: int, todo: str) -> None:
    """One request, the server's reason in 200 characters and one line, and the remedy."""
    elsewhere = {"Location": f"{server.url}/elsewhere"}
    server.script = [send_json({"error": {"message": "no\x1b[2J\n" + "x" * 500}}, status, elsewhere)]
    with pytest.raises(RefusedError, match=todo) as caught:
        client(server).post({})
    assert len(server.asked) == 1
    assert caught.value.status == status
    assert str(caught.value).count("x" * 100) == 1
    assert len(caught.value.reason) == 200
    assert str(caught.value).isprintable()


def test_nobody_there(server: Server) -> None:
    """A refused connection is an error that names the address, after all tries."""
    pauses: list[float] = []
    asking = JsonClient("http://127.0.0.1:1/v1/chat/completions", pause=pauses.append)
    with pytest.raises(ResourceError, match=r"server 127\.0\.0\.1:1 gave no answer.*ConnectionRefusedError"):
        asking.post({})
    assert len(pauses) == 5


def test_being_stopped_ends_the_waiting(server: Server) -> None:
    """After the stop nothing more is sent."""
    stop = Event()
    server.otherwise = send(500, b"")
    asking = JsonClient(chat_url(server.url), pause=lambda _: stop.set())
    with pytest.raises(Interrupted):
        asking.post({}, stop)
    assert len(server.asked) == 1


def test_the_key_goes_into_one_header_and_nowhere_else(server: Server) -> None:
    """Servers that repeat it in their errors, in any of them, do not get it printed."""
    loud = {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
    key = ApiKey(SECRET)
    shown = [repr(key), str(key), f"{key}"]
    for act in (send_json(loud, 401), send_json(loud, 400), send_json(loud, 500), send(500, SECRET.encode())):
        server.otherwise = act
        with pytest.raises(ClaspError) as caught:
            client(server, key=SECRET).post({"prompt": "hello"})
        shown += [str(caught.value), repr(caught.value), repr(caught.value.__dict__)]
    asking = client(server, key=SECRET)
    assert SECRET not in "".join([*shown, repr(asking), repr(vars(asking))])
    for asked in server.asked:
        assert asked.headers["authorization"] == f"Bearer {SECRET}"
        rest = {name: value for name, value in asked.headers.items() if name != "authorization"}
        assert SECRET not in f"{asked.path} {asked.body} {rest}"
    with pytest.raises(TypeError):
        pickle.dumps(key)


def test_a_redirect_gets_neither_key_nor_prompt(server: Server) -> None:
    """The address that a redirect names is not asked."""
    with running() as other:
        server.script = [send(307, b"", {"Location": chat_url(other.url)})]
        with pytest.raises(RefusedError):
            client(server, key=SECRET).post({"prompt": "hello"})
        assert other.asked == []


def test_a_local_server_is_not_asked_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment would see prompts and key that never leave the machine otherwise."""
    with running() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert client(server, key=SECRET).post({}) == {"fine": True}
        assert proxy.asked == []


def test_a_key_does_not_travel_in_clear_text() -> None:
    """Plain http to another machine is for servers without a key."""
    for url in ("http://10.0.0.7:8000/v1", "http://llm.example/v1", "http://127.0.0.1.example/v1"):
        with pytest.raises(UsageError, match=r"clear text.*--router-key-env"):
            JsonClient(url, ApiKey(SECRET))
        JsonClient(url, None)
    for url in ("https://llm.example/v1", "http://localhost/v1", "http://127.0.0.3:80/v1", "http://[::1]:80/v1"):
        JsonClient(url, ApiKey(SECRET))


def test_where_a_key_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variable may be absent, a named one may not; what cannot be a key is refused unseen."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("OPENAI_API_KEY", f" {SECRET}\n")
    monkeypatch.setenv("MINE", "other")
    key, mine = read_key(None), read_key("MINE")
    assert key is not None
    assert mine is not None
    assert (key.header(), mine.header()) == (f"Bearer {SECRET}", "Bearer other")
    assert read_key("") is None
    monkeypatch.setenv("BROKEN", f"{SECRET}\r\nX-Evil: 1")
    for wrong in ("ABSENT_VARIABLE", "BROKEN", SECRET):
        with pytest.raises(UsageError) as caught:
            read_key(wrong)
        assert SECRET not in f"{caught.value!r}"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("https://HOST.example/api/v2/", "https://host.example/api/v2"),
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
    ],
)
def test_an_endpoint_has_one_form(given: str, taken: str) -> None:
    """With and without the last part, with and without /v1."""
    assert check_endpoint(given) == taken
    assert check_endpoint(taken) == taken


@pytest.mark.parametrize(
    "given",
    [
        f"https://user:{SECRET}@host/v1",
        f"https://{SECRET}@host/v1",
        f"https://host/v1?api-key={SECRET}",
        f"https://host/v1#{SECRET}",
        "ftp://host/v1",
        "file:///etc/passwd",
        "localhost:8000",
        "https://",
        "http://h:99999/v1",
        "http://[::1/v1",
        "http://h/v1\r\nX: y",
        "http://h /v1",
        "http://hö/v1",
        "",
    ],
)
def test_an_endpoint_with_a_secret_or_without_sense_is_refused_unseen(given: str) -> None:
    """The text shows an example, never what was given."""
    with pytest.raises(UsageError, match="http://") as caught:
        check_endpoint(given)
    assert SECRET not in f"{caught.value!r}"


def test_local_is_this_machine() -> None:
    """Names that only look like it are not."""
    assert [is_local(f"http://{host}/v1") for host in ("localhost:1", "127.9.9.9", "[::1]")] == [True] * 3
    assert [is_local(f"http://{host}/v1") for host in ("localhost.example", "0.0.0.0", "10.0.0.1")] == [False] * 3
