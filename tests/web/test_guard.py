"""Who may look."""

import pytest
from web_fakes import FakeRecorder

from rtdetrv2_cli.errors import OutputError, UsageError
from rtdetrv2_cli.web.address import ServeAddress, bind, parse_address
from rtdetrv2_cli.web.guard import open_access

TOKEN = "correct-horse-battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
START = '{"recording": true}'
JSON = {"Content_Type": "application/json"}
EVERYTHING = ("/", "/page.js", "/view", "/state", "/streams/0.jpg", "/streams/0.mjpg", "/events")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("8000", "127.0.0.1", 8000),
        ("0.0.0.0:8000", "0.0.0.0", 8000),
        ("localhost:80", "localhost", 80),
        ("[::1]:8000", "::1", 8000),
        ("0", "127.0.0.1", 0),
    ],
)
def test_an_address_is_a_port_with_or_without_a_host(text, host, port):
    assert parse_address(text) == ServeAddress(host, port)


@pytest.mark.parametrize("text", ["", ":8000", "x", "1:2:3", "::1:8000", "65536", "-1", "a:b", "٣"])
def test_any_other_address_is_refused(text):
    with pytest.raises(UsageError, match="--serve"):
        parse_address(text)


def test_an_unknown_host_is_refused():
    with pytest.raises(UsageError, match="no such host"):
        bind(ServeAddress("no-such-host.invalid", 0))


def test_a_port_that_is_taken_is_told_in_a_sentence():
    with bind(parse_address("0")) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(OutputError, match=f"cannot serve on 127.0.0.1:{port}: .*in use"):
            bind(parse_address(str(port)))


def test_others_are_let_in_only_with_a_token():
    with bind(parse_address("0.0.0.0:0")) as listening:
        with pytest.raises(UsageError, match="add --token"):
            open_access(listening, "0.0.0.0", None)
        assert open_access(listening, "0.0.0.0", TOKEN).token == TOKEN


@pytest.mark.parametrize("token", ["", "short", "with spaces in it", "nicht-ä-ascii-ä", "a\nb" * 9])
def test_a_token_that_is_weak_or_fits_no_header_is_refused(token):
    with bind(parse_address("0")) as listening, pytest.raises(UsageError, match="--token"):
        open_access(listening, "127.0.0.1", token)


def test_access_does_not_show_its_token():
    with bind(parse_address("0")) as listening:
        assert TOKEN not in repr(open_access(listening, "127.0.0.1", TOKEN))


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9", "127.0.0.1:8000", "[::1]:8000", "cams.example:443", "LOCALHOST."],
)
def test_its_own_names_are_known(serve, host):
    assert serve(hosts=["cams.example"]).ask("/state", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""],
)
@pytest.mark.parametrize("path", ["/", "/state", "/healthz"])
def test_a_foreign_name_is_refused(serve, host, path):
    answer = serve().ask(path, Host=host)
    assert answer.status == 421
    assert "camera" not in answer.text


def test_nobody_looks_without_the_token(serve):
    served = serve(token=TOKEN)
    served.put(0, 1)
    for path in (*EVERYTHING, "/metrics", "/nothing"):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}):
            answer = served.ask(path, **headers)
            assert answer.status == 401, path
            assert "camera" not in answer.text
    assert served.ask(f"/state?token={TOKEN}x").status == 401
    assert served.ask("/state", Cookie=f"rtdetrv2_{served.port}={TOKEN}").status == 401
    assert served.ask("/recording", "POST", START, **JSON).status == 401


def test_the_token_opens_everything(serve):
    served = serve(token=TOKEN)
    assert served.ask("/state", **BEARER).status == 200
    assert served.ask("/metrics", **BEARER).status == 200
    assert served.ask(f"/state?token={TOKEN}").status == 200


def test_the_token_is_given_once_and_a_cookie_stays(serve):
    served = serve(token=TOKEN)
    answer = served.ask(f"/?token={TOKEN}&x=1")
    assert (answer.status, answer.headers["location"]) == (303, "/?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert served.ask("/state", Cookie=cookie.partition(";")[0]).status == 200


def test_browsers_are_asked_for_the_token(serve):
    answer = serve(token=TOKEN).ask("/", Accept="text/html,*/*")
    assert answer.status == 401
    assert '<input id="token"' in answer.text


def test_health_needs_no_token_and_tells_no_name(serve):
    served = serve(token=TOKEN)
    served.put(0, 1)
    answer = served.ask("/healthz")
    assert answer.status == 200
    assert "camera" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {},
        {**JSON, "Origin": "http://evil.example"},
        {**JSON, "Origin": "null"},
        {**JSON, "Sec_Fetch_Site": "cross-site"},
        {**JSON, "Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_foreign_page_switches_nothing(serve, headers):
    recorder = FakeRecorder()
    served = serve(token=TOKEN, recorder=recorder)
    assert served.ask("/recording", "POST", START, **BEARER, **headers).status == 403
    assert recorder.calls == []


def test_its_own_page_switches(serve):
    recorder = FakeRecorder()
    served = serve(recorder=recorder)
    own = {"Origin": f"http://127.0.0.1:{served.port}", "Sec_Fetch_Site": "same-origin"}
    assert served.ask("/recording", "POST", START, **JSON, **own).status == 200
    assert recorder.calls == ["start"]


@pytest.mark.parametrize("path", ["/", "/state", "/nothing", "/streams/0.jpg"])
def test_browsers_hands_are_tied(serve, path):
    served = serve(token=TOKEN)
    for headers in ({}, BEARER, {"Host": "evil.example"}):
        told = {k.lower(): v for k, v in served.ask(path, **headers).headers.items()}
        assert told["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in told["content-security-policy"]
        assert told["x-content-type-options"] == "nosniff"
        assert told["referrer-policy"] == "no-referrer"
        assert told["cross-origin-resource-policy"] == "same-origin"
        assert told["cache-control"] == "no-store"
        assert "server" not in told
        assert "access-control-allow-origin" not in told


def test_credentials_are_nowhere(serve, connect):
    served = serve(token=TOKEN)
    viewer = connect(
        served.port, f"GET /events?token={TOKEN} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    )
    got = b""
    while b"records follow" not in got:
        got += viewer.recv(65536)
    served.put(0, 1, [0, 1])
    while b"data: " not in got:
        got += viewer.recv(65536)
    seen = [got]
    for path in (
        "/",
        "/page.js",
        "/view?seen=0:0",
        "/state",
        "/metrics",
        "/healthz",
        "/streams/0.jpg",
    ):
        answer = served.ask(path, **BEARER)
        assert answer.status == 200
        seen += [answer.body, repr(answer.headers).encode()]
    for each in seen:
        assert b"secret" not in each
        assert TOKEN.encode() not in each


def test_the_sign_in_page_says_when_the_token_was_wrong(serve):
    served = serve(token=TOKEN)
    said = 'role="alert">This is not the token'
    assert said not in served.ask("/", Accept="text/html").text
    assert said in served.ask("/?token=another-horse", Accept="text/html").text
