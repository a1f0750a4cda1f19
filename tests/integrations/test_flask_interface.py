"""``app.session_interface = CacheKitSessionInterface(cache)``: Flask's own settings hold, the data is on the server."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

flask = pytest.importorskip("flask")

from cachekit_flask import CacheKitSessionInterface  # noqa: E402
from flask.sessions import SecureCookieSessionInterface  # noqa: E402
from markupsafe import Markup  # noqa: E402

from cachekit import Cache  # noqa: E402
from cachekit.errors import SessionError  # noqa: E402
from cachekit.sessions.driver import Exchange  # noqa: E402


@pytest.fixture(params=["memory://", "valkey", "redis"])
def cache(request: pytest.FixtureRequest) -> Iterator[Cache]:
    if request.param == "memory://":
        yield Cache()
        return
    server = request.getfixturevalue("valkey" if request.param == "valkey" else "redis_server")
    with server.client() as client:
        client.flushall()
    made = Cache(server.url, timeout=5)
    yield made
    made.close()


def shop(interface: CacheKitSessionInterface, **config: Any) -> Any:
    app = flask.Flask("shop")
    app.config.update(SECRET_KEY="dev", TESTING=True, **config)
    app.session_interface = interface

    @app.get("/set/<key>/<value>")
    def put(key, value):
        flask.session[key] = value
        return "ok"

    @app.get("/get/<key>")
    def get(key):
        return str(flask.session.get(key))

    @app.get("/drop/<key>")
    def drop(key):
        flask.session.pop(key, None)
        return "ok"

    @app.get("/permanent")
    def permanent():
        flask.session.permanent = True
        flask.session["user"] = "ann"
        return "ok"

    @app.get("/markup")
    def markup():
        flask.session["m"] = Markup("<b>")
        return "ok"

    @app.get("/kind")
    def kind():
        return type(flask.session["m"]).__name__

    app.add_url_rule("/plain", "plain", lambda: "plain")
    return app


def test_flasks_settings_hold(cache: Cache) -> None:
    client = shop(CacheKitSessionInterface(cache)).test_client()
    line = client.get("/set/name/ann").headers["Set-Cookie"]
    assert line.startswith("session=")
    assert "HttpOnly; Path=/" in line
    assert "Secure" not in line
    assert "ann" not in line
    assert client.get("/get/name").text == "ann"
    assert "Set-Cookie" not in client.get("/get/name").headers
    assert "Vary" not in client.get("/plain").headers


def test_one_that_was_emptied_ends(cache: Cache) -> None:
    client = shop(CacheKitSessionInterface(cache)).test_client()
    client.get("/set/name/ann")
    thief = client.application.test_client()
    thief.set_cookie("session", client.get_cookie("session").value)
    assert client.get("/drop/name").headers["Set-Cookie"].startswith("session=;")
    assert client.get_cookie("session") is None
    thief.get("/set/other/1")
    assert thief.get("/get/name").text == "None"


def test_a_permanent_one_is_refreshed_as_flask_does(cache: Cache) -> None:
    app = shop(CacheKitSessionInterface(cache))
    client = app.test_client()
    line = client.get("/permanent").headers["Set-Cookie"]
    assert "Expires=" in line
    again = client.get("/plain")
    assert again.headers["Set-Cookie"].partition(";")[0].startswith("session=")
    assert again.headers["Vary"] == "Cookie"
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    assert "Set-Cookie" not in client.get("/plain").headers
    assert client.get("/get/user").text == "ann"


@pytest.mark.parametrize("refreshed", [True, False])
def test_a_page_that_does_not_look_reads_nothing_unless_the_cookie_is_refreshed(
    cache: Cache, refreshed: bool, monkeypatch: Any
) -> None:
    app = shop(CacheKitSessionInterface(cache), SESSION_REFRESH_EACH_REQUEST=refreshed)

    @app.get("/logo")
    def logo():
        return "a logo", 200, {"Cache-Control": "public, max-age=60"}

    client = app.test_client()
    client.get("/permanent")
    reads: list[Any] = []
    load, load_now = Exchange.load, Exchange._load_now
    monkeypatch.setattr(Exchange, "load", lambda self, io: reads.append(io) or load(self, io))
    monkeypatch.setattr(Exchange, "_load_now", lambda self, instant: reads.append(instant) or load_now(self, instant))
    got = client.get("/logo")
    assert bool(reads) is ("Set-Cookie" in got.headers) is refreshed
    assert got.headers["Cache-Control"] == ("private, max-age=60" if refreshed else "public, max-age=60")
    assert got.headers.get("Vary") == ("Cookie" if refreshed else None)
    with client.session_transaction() as session:
        assert session.permanent
        session.permanent = False
    with client.session_transaction() as session:
        assert not session.permanent


@pytest.mark.parametrize("others", ["of Flask", "made-up"])
def test_what_was_cleared_takes_a_cookie_along_that_is_none_of_ours(cache: Cache, others: str) -> None:
    before = shop(SecureCookieSessionInterface()).test_client()
    before.get("/set/name/ann")
    app = shop(CacheKitSessionInterface(cache))

    @app.get("/clear")
    def clear():
        flask.session.clear()
        return "bye"

    @app.get("/clear/and/begin")
    def clear_and_begin():
        flask.session.clear()
        flask.session["name"] = "bob"
        return "hello"

    client = app.test_client()
    old = before.get_cookie("session").value if others == "of Flask" else others
    client.set_cookie("session", old)
    assert client.get("/get/name").text == "None"
    assert client.get_cookie("session").value == old, "nothing was said of it"
    assert client.get("/clear").headers.getlist("Set-Cookie")[0].startswith("session=;")
    assert client.get_cookie("session") is None
    assert "Set-Cookie" not in client.get("/clear").headers, "there is none"
    client.set_cookie("session", old)
    (line,) = client.get("/clear/and/begin").headers.getlist("Set-Cookie")
    assert not line.startswith("session=;")
    assert client.get("/get/name").text == "bob"


def test_what_is_said_not_to_be_modified_is_kept_all_the_same(cache: Cache) -> None:
    app = shop(CacheKitSessionInterface(cache))

    @app.get("/unsaid")
    def unsaid():
        flask.session["n"] = 1
        flask.session.modified = False
        return "ok"

    client = app.test_client()
    client.get("/unsaid")
    assert client.get("/get/n").text == "1"


@pytest.mark.parametrize("kept", [False, True])
def test_what_the_handler_of_an_error_puts_in(cache: Cache, kept: bool) -> None:
    app = shop(CacheKitSessionInterface(cache, save_on_server_error=kept))

    @app.get("/fail")
    def fail():
        flask.session["view"] = 1
        flask.abort(503)

    @app.errorhandler(503)
    def sorry(error):
        flask.session["handler"] = 1
        return "sorry", 503

    @app.get("/logout/fails")
    def logout_fails():
        flask.session.clear()
        flask.abort(503)

    client = app.test_client()
    client.get("/set/name/ann")
    assert client.get("/fail").status_code == 503
    assert [client.get(f"/get/{key}").text for key in ("view", "handler")] == (["1", "1"] if kept else ["None", "None"])
    client.get("/logout/fails")
    assert client.get("/get/name").text == "None"


def test_a_teardown_function_can_begin_no_session(cache: Cache) -> None:
    app, told = shop(CacheKitSessionInterface(cache)), []

    @app.teardown_request
    def late(error):
        if flask.request.path == "/plain":
            with pytest.raises(SessionError, match="the client has no id") as raised:
                flask.session["late"] = 1
            told.append(raised.value)

    client = app.test_client()
    assert client.get("/plain").text == "plain"
    assert len(told) == 1


def test_one_interface_serves_several_applications(cache: Cache) -> None:
    interface = CacheKitSessionInterface(cache)
    one, two = shop(interface), shop(interface, SESSION_COOKIE_NAME="two", SESSION_COOKIE_SECURE=True)
    client, other = one.test_client(), two.test_client()
    client.get("/set/name/ann")
    line = other.get("/set/name/bob").headers["Set-Cookie"]
    assert line.startswith("two=")
    assert "Secure" in line
    assert client.get("/get/name").text == "ann"
    one.config.update(SECRET_KEY="newer", SECRET_KEY_FALLBACKS=["dev"])
    assert client.get("/get/name").text == "ann", "the settings are those of now, the store stays"
    one.config.update(SECRET_KEY="newest", SECRET_KEY_FALLBACKS=[])
    assert client.get("/get/name").text == "None"


def test_the_methods_of_a_subclass_are_asked(cache: Cache) -> None:
    class Own(CacheKitSessionInterface):
        def get_cookie_name(self, app):
            return f"dynamic-{flask.request.host}"

        def get_cookie_path(self, app):
            return "/shop"

        def should_set_cookie(self, app, session):
            return False

    client = shop(Own(cache)).test_client()
    line = client.get("/set/name/ann", "http://a.example").headers["Set-Cookie"]
    assert line.startswith("dynamic-a.example=")
    assert "Path=/shop" in line


def test_marked_up_text_stays_what_it_is(cache: Cache) -> None:
    client = shop(CacheKitSessionInterface(cache)).test_client()
    client.get("/markup")
    assert client.get("/kind").text == "Markup"


def test_without_a_secret_key_flask_says_so(cache: Cache) -> None:
    app = shop(CacheKitSessionInterface(cache))
    app.config["SECRET_KEY"] = None
    client = app.test_client()
    assert client.get("/get/name").text == "None"
    with pytest.raises(RuntimeError, match="no secret key"):
        client.get("/set/name/ann")


def test_an_interface_keeps_no_application_alive() -> None:
    interface = CacheKitSessionInterface(Cache())
    app = shop(interface)
    app.test_client().get("/set/name/ann")
    gone = weakref.ref(app)
    del app
    gc.collect()
    assert gone() is None
