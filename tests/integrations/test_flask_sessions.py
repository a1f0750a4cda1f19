"""``flask.session`` kept by cachekit: the names that Flask's users know, on each store, with nothing lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

flask = pytest.importorskip("flask")

from cachekit_flask import CacheKit, CacheKitSessionInterface, Rule  # noqa: E402

from cachekit import Cache, ConfigError  # noqa: E402
from cachekit.codecs.msgpack import MsgpackCodec  # noqa: E402
from cachekit.sessions import SessionOptions, Sessions  # noqa: E402
from cachekit.sessions.memory import MemorySessions  # noqa: E402
from cachekit.sessions.payload import Payloads  # noqa: E402


@pytest.fixture(params=["memory://", "valkey", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory://":
        return "memory://"
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    return server.url


@pytest.fixture
def app(url: str) -> Any:
    made = flask.Flask("shop")
    made.secret_key = "dev"

    @made.route("/set/<key>/<value>")
    def put(key, value):
        flask.session[key] = value
        return "ok"

    @made.route("/get/<key>")
    def get(key):
        return str(flask.session.get(key))

    @made.route("/plain")
    def plain():
        return "plain"

    @made.route("/nested")
    def nested():
        flask.session.setdefault("cart", []).append("x")
        return str(len(flask.session["cart"]))

    @made.route("/permanent")
    def permanent():
        flask.session.permanent = True
        flask.session["a"] = 1
        return str(flask.session.permanent)

    @made.route("/clear")
    def clear():
        flask.session.clear()
        return "bye"

    @made.route("/flash")
    def flash():
        flask.flash("hello")
        return "ok"

    @made.route("/flashed")
    def flashed():
        return str(flask.get_flashed_messages())

    @made.route("/stream")
    def stream():
        flask.session["before"] = "1"

        def body():
            yield "a"
            flask.session["during"] = "2"
            yield "b"

        return flask.Response(flask.stream_with_context(body()))

    @made.route("/broken")
    def broken():
        flask.session["lost"] = "1"
        raise ValueError("broken")

    CacheKit(made, cache=Cache(url, timeout=5), sessions=True)
    return made


def test_it_is_kept_on_the_server(app: Any) -> None:
    client = app.test_client()
    first = client.get("/set/name/ann")
    assert "name" not in first.headers["Set-Cookie"]
    assert "ann" not in first.headers["Set-Cookie"]
    assert client.get("/get/name").text == "ann"
    assert app.test_client().get("/get/name").text == "None"
    assert client.get("/nested").text == "1"
    assert client.get("/nested").text == "2", "changes deep inside are noticed"


def test_a_page_that_looked_is_nobody_else_s(app: Any) -> None:
    client = app.test_client()
    client.get("/set/name/ann")
    got = client.get("/get/name")
    assert "Cookie" in got.headers["Vary"]
    assert "private" in got.headers["Cache-Control"]
    assert "Set-Cookie" not in got.headers, "nothing changed"
    plain = client.get("/plain")
    assert "Vary" not in plain.headers or "Cookie" not in plain.headers["Vary"]


def test_a_cookie_is_signed_anew_when_it_is_due(clock) -> None:
    app = flask.Flask("shop")
    app.config.update(SECRET_KEY="dev", PERMANENT_SESSION_LIFETIME=1000)
    app.session_interface = CacheKitSessionInterface(Cache(clock=clock))

    @app.route("/")
    def count():
        flask.session.permanent = True
        flask.session["n"] = flask.session.get("n", 0) + 1
        return "ok"

    client = app.test_client()

    def sent() -> str:
        return client.get("/").headers["Set-Cookie"].partition(";")[0]

    first = sent()
    clock.advance(50)
    assert sent() == first, "it says all there is to say"
    clock.advance(100)
    later = sent()
    assert later != first
    clock.advance(950)
    assert sent() != later
    with client.session_transaction() as session:
        assert session["n"] == 4


def test_permanent_outlives_the_browser(app: Any) -> None:
    client = app.test_client()
    assert "Max-Age" not in client.get("/set/a/1").headers["Set-Cookie"]
    got = client.get("/permanent")
    assert got.text == "True"
    assert f"Max-Age={31 * 24 * 3600}" in got.headers["Set-Cookie"]


def test_clearing_ends_it(app: Any) -> None:
    client = app.test_client()
    client.get("/set/name/ann")
    thief = app.test_client()
    name, value = client.get_cookie("__Host-session").key, client.get_cookie("__Host-session").value
    thief.set_cookie(name, value)
    assert thief.get("/get/name").text == "ann"
    client.get("/clear")
    assert client.get("/get/name").text == "None"
    assert thief.get("/get/name").text == "None"


def test_a_template_finds_the_user_that_a_view_has_put_in(app: Any) -> None:
    page = "{% if session.user %}{{ session.user.name }}{% else %}nobody{% endif %}"
    app.add_url_rule("/page", "page", lambda: flask.render_template_string(page))
    app.add_url_rule("/whose", "whose", lambda: flask.session.user)

    def login(name: str) -> str:
        flask.session.bind(name)
        return flask.session.user

    app.add_url_rule("/login/<name>", "login", login)

    def named() -> str:
        flask.session["user"] = {"name": "Ann"}
        return "ok"

    app.add_url_rule("/named", "named", named)
    browser = app.test_client()
    assert browser.get("/page").text == "nobody"
    browser.get("/named")
    assert browser.get("/page").text == "Ann"
    assert browser.get("/login/ann").json == {"name": "Ann"}, "what the view has put in"
    other = app.test_client()
    assert (other.get("/login/bob").text, other.get("/whose").text) == ("bob", "bob")


def test_flashed_messages(app: Any) -> None:
    client = app.test_client()
    client.get("/flash")
    assert client.get("/flashed").text == "['hello']"
    assert client.get("/flashed").text == "[]"


def test_a_stream_may_still_change_it(app: Any) -> None:
    client = app.test_client()
    client.get("/set/a/1")
    assert client.get("/stream").text == "ab"
    assert (client.get("/get/before").text, client.get("/get/during").text) == ("1", "2")


@pytest.mark.parametrize("way", ["template", "context"])
def test_a_stream_may_first_look_while_it_is_sent(app: Any, way: str) -> None:
    """Flask makes such a page when its head is out already, by Flask's own ways to stream."""

    @app.route("/hello")
    def hello():
        if way == "template":
            return flask.stream_template_string("Hello {{ session['name'] }}{{ get_flashed_messages() | join }}")

        def body():
            yield "Hello "
            yield str(flask.session.get("name", ""))

        return flask.stream_with_context(body())

    client = app.test_client()
    assert client.get("/hello").text == "Hello ", "somebody who was never here"
    client.get("/set/name/ann")
    got = client.get("/hello")
    assert (got.text, got.headers["Cache-Control"], got.headers["Vary"]) == ("Hello ann", "private", "Cookie")
    assert client.head("/hello", buffered=True).headers["Cache-Control"] == "private"
    client.set_cookie(client.get_cookie("__Host-session").key, "made up")
    assert client.get("/hello").text == "Hello "


@pytest.mark.parametrize("shared", [False, True])
def test_no_rule_gives_a_stream_that_looks_to_all(shared: bool) -> None:
    app = flask.Flask("shop")
    app.secret_key = "dev"

    @app.route("/hello", methods=["GET", "POST"])
    def hello():
        if flask.request.method == "POST":
            flask.session["name"] = flask.request.form["name"]
            return "ok"
        return flask.stream_template_string("Hello {{ session['name'] }}")

    rules = [Rule("/hello", ttl="1h", shared=shared, override=shared)]
    CacheKit(app, cache=Cache(), sessions=True, rules=rules)
    clients = {name: app.test_client() for name in ("ann", "bob")}
    for name, client in clients.items():
        client.post("/hello", data={"name": name})
    for _ in range(2):
        for name, client in clients.items():
            got = client.get("/hello")
            assert got.text == f"Hello {name}"
            assert "stored" not in got.headers["Cache-Status"]


def test_a_file_and_a_stream_for_all_stay_as_they_are(app: Any) -> None:
    @app.route("/file")
    def file():
        return flask.send_file(__file__)

    @app.route("/all")
    def for_all():
        return flask.Response((part for part in "ab"), headers={"Cache-Control": "public, max-age=60"})

    @app.route("/length")
    def length():
        return flask.Response((part for part in "ab"), headers={"Content-Length": "2"})

    @app.route("/direct")
    def direct():
        return flask.Response((part for part in (b"a", b"b")), direct_passthrough=True)

    client = app.test_client()
    for path, said in (("/file", "no-cache"), ("/all", "public, max-age=60"), ("/length", None), ("/direct", None)):
        got = client.get(path)
        assert (got.headers.get("Cache-Control"), got.headers.get("Vary")) == (said, None), path
        got.close()


def test_a_body_that_nobody_reads_is_closed() -> None:
    app = flask.Flask("shop")
    app.secret_key = "dev"
    closed = []

    class Body:
        def __iter__(self):
            yield "a"

        def close(self):
            closed.append(1)

    @app.route("/")
    def page():
        flask.session["a"] = 1
        return flask.Response(Body())

    CacheKit(app, cache=Cache(), sessions=True)
    app.test_client().head("/", buffered=True)
    assert closed == [1]


def test_what_is_looked_at_is_compared_once_and_nothing_else_is_read(app: Any, monkeypatch: Any) -> None:
    @app.route("/fill")
    def fill():
        flask.session.update(cart=[1], seen=["a"], count=1)
        return "ok"

    @app.route("/look")
    def look():
        return str(flask.session["cart"])

    @app.route("/count")
    def count():
        flask.session["count"] += 1
        return str(len(flask.session["cart"]))

    client = app.test_client()
    client.get("/fill")
    compared, read = [], []
    monkeypatch.setattr(Payloads, "same", _noting(Payloads.same, compared))
    monkeypatch.setattr(MsgpackCodec, "decode", _noting(MsgpackCodec.decode, read))
    client.get("/look")
    assert (len(compared), len(read)) == (1, 1)
    client.get("/count")
    assert (len(compared), len(read)) == (3, 3)
    assert client.get("/get/count").data == b"2"


def _noting(function: Any, calls: list[Any]) -> Any:
    def noting(self: Any, *args: Any) -> Any:
        calls.append(args)
        return function(self, *args)

    return noting


def test_what_a_hook_changes_is_kept(app: Any) -> None:
    """A subclass may decide late, when the session was compared already."""

    class Interface(CacheKitSessionInterface):
        def should_set_cookie(self, app, session):
            if flask.request.path == "/get/a":
                session["hooked"] = "yes"
            elif flask.request.path == "/get/b":
                session.permanent = True
            return super().should_set_cookie(app, session)

    app.session_interface = Interface(Cache())
    client = app.test_client()
    client.get("/set/a/1")
    client.get("/get/a")
    assert client.get("/get/hooked").data == b"yes"
    assert "Expires=" in client.get("/get/b").headers["Set-Cookie"]
    client.get("/plain")
    with client.session_transaction() as session:
        assert session.permanent


def test_what_cannot_be_read_is_not_lost_with_the_last_that_can(url: str) -> None:
    """Two releases of an application: the newer one cannot read what the older one keeps."""

    class Profile(NamedTuple):
        name: str

    knowing = MsgpackCodec()
    knowing.register(Profile)
    store: Any = MemorySessions() if url == "memory://" else Cache(url)
    releases = []
    for codec in (knowing, MsgpackCodec()):
        made = flask.Flask("shop")
        made.secret_key = "dev"
        made.session_interface = CacheKitSessionInterface(store, codec=codec)
        releases.append(made.test_client())
    older, newer = releases
    with older.session_transaction() as session:
        session.update(profile=Profile("Ann"), seen=1)
    cookie = older.get_cookie("session")
    assert cookie is not None
    newer.set_cookie("session", cookie.value)
    with newer.session_transaction() as session:
        assert "profile" not in session
        del session["seen"]
    with older.session_transaction() as session:
        assert dict(session) == {"profile": Profile("Ann")}


def test_a_failure_keeps_nothing(app: Any) -> None:
    client = app.test_client()
    client.get("/set/a/1")
    assert client.get("/broken").status_code == 500
    assert client.get("/get/lost").text == "None"


def test_the_test_client_can_change_it(app: Any) -> None:
    client = app.test_client()
    with client.session_transaction() as session:
        session["name"] = "ann"
    assert client.get("/get/name").text == "ann"
    with client.session_transaction() as session:
        assert session["name"] == "ann"
        session["name"] = "bob"
    assert client.get("/get/name").text == "bob"


def test_twenty_writers_lose_nothing(app: Any) -> None:
    client = app.test_client()
    client.get("/set/start/1")
    cookie = client.get_cookie("__Host-session")
    together = threading.Barrier(20)

    def write(number: int) -> int:
        own = app.test_client()
        own.set_cookie(cookie.key, cookie.value)
        together.wait()
        return own.get(f"/set/key{number}/1").status_code

    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(write, range(20))) == {200}
    assert [client.get(f"/get/key{number}").text for number in range(20)] == ["1"] * 20


@pytest.mark.server
def test_secrets_may_be_rotated(valkey: Any) -> None:
    cache = Cache(valkey.url, timeout=5)

    def made(secret: str, *older: str) -> Any:
        app = flask.Flask("shop")
        app.config.update(SECRET_KEY=secret, SECRET_KEY_FALLBACKS=list(older), CACHEKIT_SESSIONS=True)

        @app.route("/")
        def visits():
            flask.session["n"] = flask.session.get("n", 0) + 1
            return str(flask.session["n"])

        CacheKit(app, cache=cache)
        return app.test_client()

    old, new, other = made("old"), made("new", "old"), made("other")
    assert old.get("/").text == "1"
    cookie = old.get_cookie("__Host-session")
    for client, expected in ((new, "2"), (other, "1")):
        client.set_cookie(cookie.key, cookie.value)
        assert client.get("/").text == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (True, "set app.secret_key before CacheKit"),
        ({"secret": "x"}, "there is no 'secret' \\(did you mean 'secrets'\\?\\)"),
        ({"secrets": "short"}, "at least"),
        ("yes", "must be True, False, SessionOptions"),
    ],
)
def test_wrong_settings_are_named_at_start(setting: Any, message: str) -> None:
    app = flask.Flask("shop")
    app.config["CACHEKIT_SESSIONS"] = setting
    with pytest.raises(ConfigError, match=message):
        CacheKit(app, cache=Cache())


def test_sessions_of_one_s_own() -> None:
    app = flask.Flask("shop")
    own = Sessions("memory://", SessionOptions(secrets="a secret that is long enough"))
    CacheKit(app, cache=Cache(), sessions=own)
    assert app.extensions["cachekit.sessions"] is own
    with pytest.raises(ConfigError, match="must be True, SessionOptions"):
        CacheKit(flask.Flask("other"), cache=Cache(), sessions="yes")
