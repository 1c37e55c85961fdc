"""The demo's server over real HTTP: answers, limits, and nothing for pages that are not its own."""

from __future__ import annotations

import http.client
import io
import json
import socket
import struct
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from demo_server import EXAMPLE, running_demo
from house import ROOT
from PIL import Image
from profile_example import edited

from claspkit.calib import demo as demo_module
from claspkit.calib.apply import Asker
from claspkit.calib.cli import main
from claspkit.calib.demo import BusyError, Demo, Example
from claspkit.calib.demo_page import render_page
from claspkit.calib.demo_server import DemoServer
from claspkit.profiles.errors import BadDataError
from claspkit.profiles.files import read_profile, write_profile
from claspkit.profiles.profile import Profile, seal
from claspkit.runtime.models import LoadedModel, load_model

PICTURE = (ROOT / "docs" / "images" / "example.png").read_bytes()
ASK = {"picture": "example:0", "prompt": "How many?", "profile": 0, "intent": None, "compare": False}


def sealed_again(fields: dict[str, Any]) -> Profile:
    """A profile out of the fields of another one."""
    return seal({name: value for name, value in fields.items() if name not in {"profile_id", "schema_version"}})


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A demo with two budgets."""
    folder = tmp_path_factory.mktemp("small")
    fields = read_profile(EXAMPLE).model_dump(mode="json")
    stages = [{**stage, "keep": stage["keep"] // 3} for stage in fields["budget"]["stages"]]
    for row in fields["classes"]:
        row["stages"] = stages
    write_profile(sealed_again(fields), folder)
    with running_demo(profiles=(EXAMPLE, folder)) as found:
        yield found


def send(
    address: str, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request as it is told; returns status, headers and body."""
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=60)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, given)
    reply = connection.getresponse()
    found = reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    connection.close()
    return found


def post(address: str, path: str, data: object) -> tuple[int, dict[str, Any]]:
    """A request as the page makes it."""
    kind, body = ("application/octet-stream", data) if isinstance(data, bytes) else ("application/json", None)
    if not isinstance(body, bytes):
        body = json.dumps(data).encode()
    status, _, found = send(address, "POST", path, body, Content_Type=kind, Origin=address.rstrip("/"))
    answer: dict[str, Any] = json.loads(found)
    return status, answer


def test_the_page_is_whole_and_fetches_nothing(address: str) -> None:
    """One document with a strict policy; the only addresses in it are pictures of this server."""
    status, headers, body = send(address, "GET", "/")
    assert status == 200
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-frame-options"] == "DENY"
    sources: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            sources.extend(str(value) for name, value in attrs if name in {"src", "href", "action"})

    Reader().feed(body.decode())
    assert [source for source in sources if not source.startswith(("/examples/", "data:"))] == []
    assert len(sources) > 3
    for source in sources:
        if source.startswith("/"):
            status, headers, picture = send(address, "GET", source)
            assert (status, headers["content-type"]) == (200, "image/png")
            assert Image.open(io.BytesIO(picture)).size[0] > 0


def test_a_question_is_answered_with_what_every_stage_kept(address: str) -> None:
    """Routed and with a class of one's own, pruned and unpruned, under either budget, with drawings."""
    question = {**ASK, "prompt": "How many crosses are there?", "compare": True}
    status, answer = post(address, "/ask", question)
    assert status == 200
    assert answer["intent"] == "counting"
    assert [stage["kept"] for stage in answer["stages"]] == [75, 50, 30]
    assert isinstance(answer["unpruned"], str)
    assert answer["seconds"] > 0
    assert all(stage["drawing"].startswith("data:image/png;base64,") for stage in answer["stages"])
    status, answer = post(address, "/ask", {**question, "profile": 1, "intent": "scene", "compare": False})
    assert status == 200
    assert (answer["intent"], answer["label_source"], answer["unpruned"]) == ("scene", "given", None)
    assert [stage["kept"] for stage in answer["stages"]] == [25, 16, 10]


def test_a_picture_of_ones_own_is_remembered_for_a_while(address: str) -> None:
    """By a name that nobody can guess; the oldest is forgotten."""
    names = [post(address, "/upload", PICTURE)[1]["picture"] for _ in range(demo_module.KEPT_UPLOADS + 1)]
    assert len(set(names)) == len(names)
    assert all(len(name) == 32 for name in names)
    assert post(address, "/ask", {**ASK, "picture": names[-1]})[0] == 200
    status, answer = post(address, "/ask", {**ASK, "picture": names[0]})
    assert status == 400
    assert "upload it again" in answer["error"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"no picture", "not a picture"),
        (PICTURE[:300], "damaged"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused(address: str, data: bytes, words: str) -> None:
    status, answer = post(address, "/upload", data)
    assert status == 400
    assert words in answer["error"]


@pytest.mark.parametrize(
    "change",
    [
        {"picture": "example:99"},
        {"picture": "example:-1"},
        {"picture": "example:²"},
        {"picture": "../../etc/passwd"},
        {"picture": "/etc/passwd"},
        {"picture": 0},
        {"profile": 2},
        {"profile": -1},
        {"profile": True},
        {"profile": "/etc/passwd"},
        {"intent": "poetry"},
        {"intent": 3},
        {"prompt": ""},
        {"prompt": "x" * 20_001},
        {"prompt": None},
        {"compare": 1},
        {"more": 1},
    ],
)
def test_a_field_that_is_not_what_it_must_be_is_refused(address: str, change: dict[str, object]) -> None:
    status, answer = post(address, "/ask", {**ASK, **change})
    assert status == 400
    assert answer["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_question_is_refused(address: str, body: bytes) -> None:
    found = send(address, "POST", "/ask", body, Content_Type="application/json", Origin=address.rstrip("/"))
    assert found[0] == 400


def test_other_sites_are_refused(address: str) -> None:
    """Another Host (rebinding), another or no Origin, and types that a form can send without asking."""
    place, body, kind = urlsplit(address).netloc, json.dumps(ASK).encode(), "application/json"
    port = place.rpartition(":")[2]
    own = f"http://{place}"
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}"):
        assert send(address, "GET", "/", Host=host)[0] == 403
        assert send(address, "POST", "/ask", body, Host=host, Origin=f"http://{host}", Content_Type=kind)[0] == 403
    others = ("http://evil.example", "null", f"https://{place}", f"http://localhost:{port}", own + ".evil.example")
    for origin in others:
        assert send(address, "POST", "/ask", body, Origin=origin, Content_Type=kind)[0] == 403
    assert send(address, "POST", "/ask", body, Content_Type=kind)[0] == 403
    for other in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert send(address, "POST", "/ask", body, Origin=own, Content_Type=other)[0] == 415
    assert send(address, "OPTIONS", "/ask", Origin="http://evil.example")[0] == 501
    name = f"localhost:{port}"
    both = send(address, "POST", "/ask", body, Host=name, Origin=f"http://{name}", Content_Type=kind)
    assert both[0] == 200
    assert not any(name.startswith("access-control") for name in both[1])


PATHS = ["/etc/passwd", "/../../etc/passwd", "/%2e%2e/x", "/examples/../x", "/examples/99", "/examples/0/", "/ask"]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_opened(address: str, path: str) -> None:
    assert send(address, "GET", path)[0] == 404
    own = address.rstrip("/")
    assert send(address, "POST", path + "x", b"{}", Origin=own, Content_Type="application/json")[0] == 404


def raw(address: str, text: str) -> str:
    """Send bytes as they are, and nothing more; returns the status line."""
    host, _, port = urlsplit(address).netloc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(text.encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline().decode().strip()


@pytest.mark.parametrize(
    ("length", "code"),
    [("Content-Length: 999999999", 413), ("Content-Length: -1", 411), ("X: y", 411), ("Content-Length: 10", 400)],
)
def test_a_body_must_say_its_length_and_keep_it(address: str, length: str, code: int) -> None:
    """Refused before it is read, if it is too long."""
    place = urlsplit(address).netloc
    head = f"POST /upload HTTP/1.1\r\nHost: {place}\r\nOrigin: http://{place}\r\n{length}\r\n"
    assert f" {code} " in raw(address, head + "Content-Type: application/octet-stream\r\n\r\nabc")


def test_an_idle_connection_holds_nobody_up(address: str) -> None:
    host, _, port = urlsplit(address).netloc.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60):
        assert send(address, "GET", "/")[0] == 200


def test_a_browser_that_goes_away_is_no_error(address: str) -> None:
    """Mid-request and before its answer; the fixture's end sees that nothing was printed."""
    place = urlsplit(address).netloc
    host, _, port = place.rpartition(":")
    body = json.dumps(ASK)
    head = f"POST /ask HTTP/1.1\r\nHost: {place}\r\nOrigin: http://{place}\r\nContent-Type: application/json\r\n"
    for sent in ("POST /ask", head + f"Content-Length: {len(body)}\r\n\r\n{body}"):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
            connection.sendall(sent.encode())
    status = 503
    while status == 503:  # the abandoned question may still be on its way
        status, _ = post(address, "/ask", ASK)
    assert status == 200


def test_an_error_of_ours_is_told_to_both(
    mini: LoadedModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The page gets an answer without its text, the terminal the traceback."""

    def breaks(*_: object, **__: object) -> None:
        raise RuntimeError("a secret of ours")

    monkeypatch.setattr(Asker, "ask", breaks)
    with DemoServer(Demo(mini, [EXAMPLE], [Example("x", PICTURE, "")], 4), 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, answer = post(server.address, "/ask", ASK)
        server.shutdown()
    assert status == 500
    assert "secret" not in answer["error"]
    assert "RuntimeError: a secret of ours" in capfd.readouterr().err


@pytest.fixture(scope="module")
def mini() -> LoadedModel:
    """The embedded model."""
    return load_model("mini")


def test_one_question_at_a_time(mini: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second one while the first is being answered is told so, and works afterwards."""
    demo = Demo(mini, [EXAMPLE], [Example("x", PICTURE, "")], 4)
    inside, go_on = threading.Event(), threading.Event()
    real = Asker.ask

    def slow(*arguments: Any, **options: Any) -> Any:
        inside.set()
        assert go_on.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(Asker, "ask", slow)
    answers: list[dict[str, Any]] = []
    first = threading.Thread(target=lambda: answers.append(demo.ask(ASK)))
    first.start()
    assert inside.wait(60)
    with pytest.raises(BusyError, match="another question"):
        demo.ask(ASK)
    go_on.set()
    first.join()
    assert len(answers) == 1
    assert demo.ask(ASK)["text"] == answers[0]["text"]


def test_a_picture_too_large_is_refused(mini: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes and by pixels."""
    demo = Demo(mini, [EXAMPLE], [Example("x", PICTURE, "")], 4)
    monkeypatch.setattr(demo_module, "MAX_PIXELS", 100)
    with pytest.raises(BadDataError, match="pixels, 100 are allowed"):
        demo.upload(PICTURE)
    monkeypatch.setattr(demo_module, "MAX_UPLOAD", 100)
    with pytest.raises(BadDataError, match="bytes, 100 are allowed"):
        demo.upload(PICTURE)


def test_names_are_escaped_in_the_page() -> None:
    """Of the model, profiles, examples and questions: none of them ends a script or opens an element."""
    evil = "</script><img src=x onerror=alert(1)>\"'&"
    facts = {
        "model": evil,
        "profiles": [{"name": evil, "intents": [evil]}],
        "examples": [{"name": evil, "prompt": evil}],
        "max_upload": 1,
        "max_prompt": 1,
    }
    page = render_page(facts, "nonce")
    assert "<img src=x" not in page
    assert page.count("</script>") == 2
    data = page.partition('id="facts" nonce="nonce">')[2].partition("</script>")[0]
    assert json.loads(data) == facts


def test_what_does_not_fit_is_refused_before_a_page_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model's profile, no profile, no pictures, a port that is taken: each its exit code."""
    fields = read_profile(EXAMPLE).model_dump(mode="json")
    other = edited(fields, ("model", "fingerprint"), "ab" * 32)
    write_profile(sealed_again(other), tmp_path)
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code, words in (
            (["--profile", str(tmp_path)], 4, "fingerprint"),
            (["--profile", str(tmp_path / "no")], 2, "cannot read the profile"),
            (["--profile", str(EXAMPLE), "--examples", str(tmp_path / "empty")], 2, "holds no pictures"),
            (["--profile", str(EXAMPLE), "--port", port], 2, "give --port another number"),
        ):
            with pytest.raises(SystemExit) as stop:
                main(["demo", "--model", "mini", *arguments])
            assert stop.value.code == code
            assert words in " ".join(capsys.readouterr().err.split())


def test_profiles_are_named_by_the_end_of_their_path() -> None:
    """Two parts fit on a phone; two that end alike are named whole."""
    alike = [Path("/one/mini/profile"), Path("/two/mini/profile"), Path("/two/mini/profile-16")]
    assert demo_module._short_names(alike) == ["/one/mini/profile", "/two/mini/profile", "mini/profile-16"]
    assert demo_module._short_names([Path("profile.json")]) == ["profile.json"]
