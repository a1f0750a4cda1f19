"""``app.session_interface = CacheKitSessionInterface(cache)``: Flask's own settings hold, the data is on the server."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

flask = pytest.importorskip("flask")

from cachekit_flask import CacheKitSessionInterface  # noqa: E402
from markupsafe import Markup  # noqa: E402

from cachekit import Cache  # noqa: E402


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
