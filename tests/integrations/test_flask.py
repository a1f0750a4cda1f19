"""The Flask adapter: settings, views, functions, values, commands, signals, and what passes through."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

flask = pytest.importorskip("flask")

from cachekit_flask import CacheKit, Compression, HttpOptions, Rule, cache_hit, cache_miss, cache_stored  # noqa: E402
from flask.views import MethodView, View  # noqa: E402

from cachekit import Cache, ConfigError, Kind, default_cache  # noqa: E402
from cachekit.testing import ManualClock  # noqa: E402
from cachekit.warm import Warmer  # noqa: E402
from tests.ports import free_port  # noqa: E402


@pytest.fixture
def app():
    made = flask.Flask("shop")
    made.config.update(TESTING=True, SECRET_KEY="secret")
    return made


@pytest.fixture
def kit(app):
    return CacheKit(app, cache=Cache(ttl_classes={"prices": "5m"}))


@pytest.fixture
def client(app):
    return app.test_client()


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_make_the_cache(app):
    app.config.update(
        CACHEKIT_URL="memory://own", CACHEKIT_TTL="1h", CACHEKIT_TTL_CLASSES={"prices": "5m"}, CACHEKIT_NAMESPACE="shop",
        CACHEKIT_JITTER=0.1, CACHEKIT_MAX_ENTRIES=10, CACHEKIT_MAX_BYTES=100_000, CACHEKIT_TIMEOUT=0.5,
        CACHEKIT_STALE_WHILE_REVALIDATE="1m", CACHEKIT_STALE_IF_ERROR=60, CACHEKIT_COMPRESSION={"minimum": 10},
        CACHEKIT_HTTP={"status_name": "shop"}, CACHEKIT_RULES=[{"path": "/a", "ttl": "1m"}, Rule("/b", ttl="1m")],
    )  # fmt: skip
    app.add_url_rule("/a", "a", lambda: "a" * 100)
    app.add_url_rule("/b", "b", lambda: "b" * 100)
    cache = CacheKit(app).cache
    assert (cache.url, cache.ttl_classes) == ("memory://own", ("prices",))
    policy = cache.policy(None)
    assert (policy.ttl, policy.stale_while_revalidate, policy.stale_if_error) == (3600, 60, 60)
    client = app.test_client()
    for path in ("/a", "/b"):
        client.get(path)
        answer = client.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.headers["Cache-Status"].startswith("shop; hit")
        assert answer.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CACHEKIT_ULR", "redis://", "CACHEKIT_ULR='redis://' .did you mean 'CACHEKIT_URL'.*CACHEKIT_TTL_CLASSES"),
        ("CACHEKIT_URL", 7, r"\['CACHEKIT_URL'\]=7: must be a URL such as"),
        ("CACHEKIT_URL", "http://x", "app.config, CACHEKIT_.*http"),
        ("CACHEKIT_TTL", "soon", r"\['CACHEKIT_TTL'\]='soon'"),
        ("CACHEKIT_TTL_CLASSES", "5m", "dictionary"),
        ("CACHEKIT_TTL_CLASSES", {"5m": 1}, "5m"),
        ("CACHEKIT_JITTER", True, "from 0 to 1"),
        ("CACHEKIT_JITTER", 3, "jitter=3"),
        ("CACHEKIT_TIMEOUT", "1", "seconds"),
        ("CACHEKIT_MAX_ENTRIES", 1.5, "whole number"),
        ("CACHEKIT_STALE_IF_ERROR", -1, r"\['CACHEKIT_STALE_IF_ERROR'\]=-1"),
        ("CACHEKIT_RULES", {"path": "/"}, "list of Rule"),
        ("CACHEKIT_RULES", ["/a"], "list of Rule"),
        ("CACHEKIT_RULES", [{"path": "/", "tll": 1}], "no 'tll' .did you mean 'ttl'"),
        ("CACHEKIT_RULES", [{"ttl": 1}], "path"),
        ("CACHEKIT_RULES", [{"path": "a"}], "begins with /"),
        ("CACHEKIT_HTTP", {"max_bodies": 1}, "did you mean 'max_body'"),
        ("CACHEKIT_HTTP", {"max_body": -1}, "max_body=-1"),
        ("CACHEKIT_COMPRESSION", "gzip", "True, False"),
        ("CACHEKIT_COMPRESSION", {"codings": ["deflate"]}, "deflate"),
        ("CACHEKIT_ENABLED", "yes", "True or False"),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(app, name, value, message):
    app.config[name] = value
    with pytest.raises(ConfigError, match=message) as caught:
        CacheKit(app)
    assert "CACHEKIT_" in str(caught.value)


def test_settings_that_nothing_reads_any_more_are_named_once(app, caplog, monkeypatch):
    app.config.update(
        CACHE_TYPE="RedisCache", CACHE_REDIS_URL="redis://localhost", CACHE_DEFAULT_TIMEOUT=300, CACHE_ARGS=None,
        CACHE_HASH_METHOD="md5", CACHE_SERIALIZER="json",
        SESSION_TYPE="redis", SESSION_PERMANENT=False, SESSION_COOKIE_NAME="sid",
    )  # fmt: skip
    kit = CacheKit(app, cache=Cache())
    (said,) = caplog.messages
    assert "CACHE_TYPE, CACHE_REDIS_URL (now CACHEKIT_URL); CACHE_DEFAULT_TIMEOUT (now CACHEKIT_TTL)" in said
    assert "CACHE_HASH_METHOD, CACHE_SERIALIZER (now nothing: leave it out)" in said
    assert "SESSION_TYPE (now CACHEKIT_URL and CACHEKIT_SESSIONS = True); SESSION_PERMANENT (now" in said
    assert "CACHE_ARGS" not in said and "COOKIE" not in said
    caplog.clear()
    for name in ("flask_caching", "flask_session"):  # which may be in use beside
        monkeypatch.setitem(sys.modules, name, object())
    other = flask.Flask("other")
    other.config.update(app.config)
    kit.init_app(other)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("decorate", "message"),
    [
        (lambda kit: kit.cached(ttl="5m", timeout=5), "give one of them"),
        (lambda kit: kit.cached(tll="5m"), "'tll'.*the options are timeout, ttl"),
        (lambda kit: kit.cached(unless=True), "unless=True must be a function"),
        (lambda kit: kit.cached(key_prefix=7), "key_prefix=7"),
        (lambda kit: kit.cached(vary="accept-language"), "vary="),
        (lambda kit: kit.cached(shared="yes"), "cached: shared='yes' must be True or False"),
        (lambda kit: kit.cached(query_string="no"), "cached: query_string='no' must be True or False"),
        (lambda kit: kit.memoize(copy="yes"), "copy='yes' must be True or False"),
        (lambda kit: kit.cached(ttl="soon"), "cached on .*view: ttl='soon'"),
        (lambda kit: kit.cached(ttl="5m", tags=["product:{id}"]), "cached on .*view.*id"),
        (lambda kit: kit.memoize(ttl="soon"), "soon"),
        (lambda kit: kit.memoize(ttl="5m", tags="product"), "must be a list"),
        (lambda kit: kit.memoize(tll="5m"), "tll"),
        (lambda kit: kit.memoize(make_name=str), "key="),
        (lambda kit: kit.memoize(source_check=True), "docs/flask.md"),
    ],
)
def test_a_wrong_option_is_named_when_decorating(kit, decorate, message):
    def view(number): ...

    with pytest.raises(ConfigError, match=message):
        decorate(kit)(view)


def test_what_was_decorated_before_is_checked_when_the_application_is_set_up(app):
    kit = CacheKit()

    @kit.cached(ttl="prices")
    def view(): ...

    @kit.memoize(ttl="prices")
    def function(): ...

    with pytest.raises(ConfigError, match="prices"):
        kit.init_app(app)
    app.config["CACHEKIT_TTL_CLASSES"] = {"prices": "5m"}
    kit.init_app(app)
    with pytest.raises(ConfigError, match="already"):
        kit.init_app(app)
    with pytest.raises(ConfigError, match="cache='redis://'"):
        CacheKit(cache="redis://")


def test_disabled(app):
    app.config["CACHEKIT_ENABLED"] = False
    kit, calls = CacheKit(app), []

    @kit.memoize(ttl="5m")
    def function():
        calls.append(1)
        return len(calls)

    @app.get("/")
    @kit.cached(ttl="5m")
    def view():
        return str(function())

    assert [app.test_client().get("/").text for _ in range(3)] == ["1", "2", "3"]


def test_factories_and_several_applications(caplog):
    kit, calls = CacheKit(), []

    @kit.memoize(ttl="5m")
    def function():
        calls.append(flask.current_app.name)
        return flask.current_app.name

    def create(name):
        app = flask.Flask(name)
        app.config["CACHEKIT_URL"] = "memory://"
        kit.init_app(app)

        @app.get("/")
        @kit.cached(ttl="5m")
        def view():
            calls.append(f"view of {name}")
            return function()

        return app

    with pytest.raises(ConfigError, match="init_app"):
        _ = kit.cache
    one = create("one")
    assert kit.cache is kit.cache  # with a single application no context is needed
    two = create("two")
    for _ in range(2):
        assert (one.test_client().get("/").text, two.test_client().get("/").text) == ("one", "two")
    assert calls == ["view of one", "one", "view of two", "two"]
    with pytest.raises(ConfigError, match="'one', 'two'.*app_context"):
        _ = kit.cache
    with one.app_context():
        kit.clear()
    assert (one.test_client().get("/").text, two.test_client().get("/").text) == ("one", "two")
    assert calls[4:] == ["view of one", "one"]
    first, second = flask.Flask("first"), flask.Flask("second")
    with caplog.at_level(logging.WARNING, "cachekit"):
        assert CacheKit(first).cache is CacheKit(second).cache is default_cache()
    assert "'second' shares the default cache with" in caplog.text


# -- views ------------------------------------------------------------------------------------------------------------


def counted(app, kit, path="/", route=None, **options):
    """Add a view that counts its calls."""
    calls = []

    @kit.cached(**{"ttl": "5m", **options})
    def view(**arguments):
        calls.append(arguments or flask.request.query_string.decode())
        return route() if route is not None else f"{len(calls)}"

    app._got_first_request = False  # tests add their views as they go
    app.add_url_rule(path, path.replace(".", "-"), view)
    return calls


def test_a_view_is_kept_where_the_decorator_stands(app, kit, client):
    seen = []
    app.before_request(lambda: seen.append("before"))
    app.after_request(lambda response: seen.append("after") or response)
    app.teardown_request(lambda error: seen.append("teardown"))
    app.teardown_appcontext(lambda error: seen.append("context"))
    calls = counted(app, kit, "/products/<int:number>", tags=["product:{number}"])
    assert [client.get(f"/products/{n}").text for n in (1, 1, 2, 1)] == ["1", "1", "2", "1"]
    assert calls == [{"number": 1}, {"number": 2}]
    assert seen == ["before", "after", "teardown", "context"] * 4
    kit.invalidate("product:1")
    assert [client.get(f"/products/{n}").text for n in (1, 2)] == ["3", "2"]


def test_the_tags_of_a_view_reach_what_is_around_it(app, client):
    cache = Cache()
    kit = CacheKit(app, cache=cache, rules=[Rule("/**", ttl="1h")])
    calls = counted(app, kit, "/<number>", tags=lambda number: [f"product:{number}"])
    client.get("/7")
    assert client.get("/7").headers["Cache-Tag"] == "product:7"
    cache.invalidate("product:7")
    client.get("/7")
    assert len(calls) == 2


def test_lifetimes(app, client):
    clock = ManualClock()
    kit = CacheKit(app, cache=Cache(clock=clock, ttl_classes={"prices": "1m"}, stale_while_revalidate="1h"))
    counted(app, kit, "/class", ttl="prices")

    @app.get("/seconds")
    @kit.cached(10)
    def seconds():
        return str(clock())

    @app.get("/ever")
    @kit.cached(timeout=0)
    def ever():
        return str(clock())

    first = [client.get(path).text for path in ("/class", "/seconds", "/ever")]
    clock.advance(30)
    again = [client.get(path).text for path in ("/class", "/seconds", "/ever")]
    assert [a == b for a, b in zip(first, again, strict=True)] == [True, False, True]
    clock.advance(31)
    assert client.get("/class").text == "2"  # not stale: a refresh behind would run outside of its request
    clock.advance(10_000_000)
    assert client.get("/ever").text == first[2]


def test_the_key(app, kit, client):
    calls = counted(app, kit, "/all")
    for path in ("/all?a=1&b=2", "/all?b=2&a=1", "/all?a=1", "/all?a=1&a=2", "/all?a=2&a=1", "/all?a=1&b=0&a=2"):
        client.get(path)
    assert calls == ["a=1&b=2", "a=1", "a=1&a=2", "a=2&a=1", "a=1&b=0&a=2"]
    client.get("/all?a=1&a=2&b=0")
    assert len(calls) == 5, "of what has different names the order means nothing"
    calls = counted(app, kit, "/path", query_string=False)
    client.get("/path?a=1"), client.get("/path?a=2")
    assert len(calls) == 1
    client.get("/path", base_url="http://other"), client.get("/path", base_url="https://localhost")
    assert len(calls) == 3
    calls = counted(app, kit, "/language", vary=["Accept-Language"])
    for language in ("de", "en", "de"):
        client.get("/language", headers={"Accept-Language": language})
    assert len(calls) == 2
    calls = counted(app, kit, "/made/<number>", make_cache_key=lambda number: f"half {int(number) // 2}")
    client.get("/made/2"), client.get("/made/3"), client.get("/made/4")
    assert calls == [{"number": "2"}, {"number": "4"}]
    calls = counted(app, kit, "/prefix", key_prefix=lambda: flask.request.args["tenant"])
    client.get("/prefix?tenant=a&b=1"), client.get("/prefix?tenant=a&b=2"), client.get("/prefix?tenant=b")
    assert len(calls) == 2
    calls = counted(app, kit, "/asked", key_prefix=lambda: "asked", query_string=True)
    assert [client.get(f"/asked{query}").text for query in ("?a=1&b=2", "?a=2", "?b=2&a=1", "")] == ["1", "2", "1", "3"]
    calls = counted(app, kit, "/broken", make_cache_key=lambda: 1 / 0)
    assert [client.get("/broken").text for _ in range(2)] == ["1", "2"]  # a wrong key breaks no view


def test_who_says_who_he_is_gets_his_own(app, kit):
    client = app.test_client(use_cookies=False)
    calls = counted(app, kit, "/own")
    for headers in ({"Cookie": "a=b"}, {"Authorization": "Bearer x"}, {"X-Api-Key": "1"}):
        client.get("/own", headers=headers)
    client.get("/own"), client.get("/own"), client.get("/own", headers={"Cookie": "a=b"})
    assert len(calls) == 5
    for variable in ("REMOTE_USER", "SSL_CLIENT_S_DN", "HTTP_X_FORWARDED_USER"):
        assert client.get("/own", environ_base={variable: "ann"}).text == f"{len(calls)}"
        assert client.get("/own", environ_base={variable: ""}).text == "4", "nobody"
    assert len(calls) == 8
    calls = counted(app, kit, "/shared", shared=True)
    client.get("/shared", headers={"Cookie": "a=b"}), client.get("/shared", headers={"Authorization": "Bearer x"})
    client.get("/shared")
    assert len(calls) == 1


def _private():
    response = flask.make_response("mine")
    response.cache_control.private = True
    return response


def _cookie():
    response = flask.make_response("mine")
    response.set_cookie("a", "b")
    return response


def _session():
    flask.session["a"] = 1
    return "mine"


def _look():
    return str(flask.session.get("user"))


def _flash():
    flask.flash("hello")
    return "mine"


def _flashed():
    return str(flask.get_flashed_messages())


def _after():
    @flask.after_this_request
    def later(response):
        response.headers["X-Later"] = "1"
        return response

    return "mine"


def _vary():
    response = flask.make_response("mine")
    response.vary.add("Accept-Language")
    return response


def _stream():
    return flask.Response(flask.stream_with_context(piece for piece in ("a", flask.request.path)))


def _file():
    return flask.send_file(__file__)


PERSONAL = [_private, _cookie, _session, _look, _flash, _flashed, _after, _vary, _stream, _file]


@pytest.mark.parametrize("answer", [*PERSONAL, lambda: ("gone", 404), lambda: flask.redirect("/x")])
def test_what_is_not_for_everyone_is_not_kept(app, kit, client, answer):
    calls = counted(app, kit, route=answer, shared=True)
    first, again = client.get("/"), client.get("/")
    first.get_data(), first.close(), again.get_data(), again.close()
    assert len(calls) == 2
    if answer not in (_session, _flash):  # which leave a cookie behind
        assert (first.status, first.data) == (again.status, again.data)
    if answer is _after:
        assert again.headers["X-Later"] == "1"
    if answer is _stream:
        assert again.text == "a/"


def test_a_strangers_look_into_the_session_is_kept_for_strangers(app, kit, client):
    @app.before_request
    def load_user():
        flask.g.user = flask.session.get("user")

    calls = counted(app, kit, route=lambda: f"hello {flask.g.user}")
    assert [client.get("/").text for _ in range(2)] == ["hello None"] * 2
    assert len(calls) == 1
    assert client.get("/").headers["Vary"] == "Cookie"
    with client.session_transaction() as session:
        session["user"] = "ada"
    assert client.get("/").text == "hello ada"
    assert app.test_client().get("/").text == "hello None"


def test_looking_at_the_session_leaves_its_traces(app, kit, client):
    counted(app, kit, "/look", route=_look)
    counted(app, kit, "/not")
    assert client.get("/look").headers["Vary"] == "Cookie"
    assert "Vary" not in client.get("/not").headers


def test_etags_and_head(app, kit, client):
    calls = counted(app, kit)
    first = client.get("/")
    again = client.get("/", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data, len(calls)) == (304, b"", 1)
    head = client.head("/")
    assert (head.status_code, head.data, head.headers["Content-Length"], len(calls)) == (200, b"", "1", 1)
    calls = counted(app, kit, "/head")
    client.head("/head"), client.get("/head"), client.post("/head")
    assert len(calls) == 2
    assert (client.get("/head").text, client.head("/head").status_code, len(calls)) == ("2", 200, 2), (
        "HEAD hinders nobody"
    )


def test_status_and_filters(app, kit, client):
    calls = counted(app, kit, "/404", route=lambda: ("none", 404, {"X-A": "1"}), status=[200, 404])
    answers = [client.get("/404") for _ in range(2)]
    assert [(a.status_code, a.text, a.headers["X-A"]) for a in answers] == [(404, "none", "1")] * 2
    assert len(calls) == 1
    calls = counted(app, kit, "/filter", response_filter=lambda response: b"2" not in response.data)
    assert [client.get("/filter").text for _ in range(2)] == ["1", "1"]
    calls = counted(app, kit, "/filtered", response_filter=lambda response: False)
    assert [client.get("/filtered").text for _ in range(2)] == ["1", "2"]
    calls = counted(app, kit, "/unless", unless=lambda: flask.request.args.get("fresh"))
    assert [client.get(f"/unless{query}").text for query in ("", "?fresh=1", "?fresh=1", "")] == ["1", "2", "3", "1"]


def test_a_view_is_made_anew_when_asked_to(app, kit, client):
    renew, asked = [], []

    def forced(number):
        asked.append(number)
        return number in renew

    @app.get("/forced/<int:number>")
    @kit.cached(50, forced_update=forced)
    def view(number):
        return str(len(asked))

    first = [client.get("/forced/1").text for _ in range(2)]
    renew.append(1)
    second = client.get("/forced/1").text
    renew.clear()
    assert [*first, second, client.get("/forced/1").text] == ["1", "1", "3", "3"] and set(asked) == {1}


def test_what_cannot_be_made_anew_stays(app, kit, client):
    app.testing = False
    broken = []

    @app.get("/forced")
    @kit.cached(50, forced_update=lambda: "fresh" in flask.request.args, query_string=False)
    def view():
        return flask.abort(503) if broken else "page"

    assert client.get("/forced").text == "page"
    broken.append(1)
    assert client.get("/forced?fresh=1").status_code == 503
    assert client.head("/forced?fresh=1").status_code == 503
    assert client.get("/forced").text == "page"


def test_class_based_views_blueprints_and_async_views(app, kit, client):
    pytest.importorskip("asgiref")
    calls = []

    class Page(View):
        decorators = [kit.cached(ttl="5m", tags=["product:{number}"])]

        def dispatch_request(self, number):
            calls.append("class")
            return f"page {number}"

    class Item(MethodView):
        @kit.cached(ttl="5m", tags=["product:{number}"])
        def get(self, number):
            calls.append("method")
            return {"item": number}

        def post(self, number):
            return "posted"

    app.add_url_rule("/page/<number>", view_func=Page.as_view("page"))
    app.add_url_rule("/item/<number>", view_func=Item.as_view("item"))
    blueprint = flask.Blueprint("admin", "admin", url_prefix="/admin")

    @blueprint.get("/<number>")
    @kit.cached(ttl="5m", tags=["product:{number}"])
    async def asynchronous(number):
        calls.append("async")
        return {"number": number}

    app.register_blueprint(blueprint)
    paths = ("/page/1", "/item/1", "/admin/1")
    for _ in range(2):
        assert [client.get(path).status_code for path in paths] == [200] * 3
    assert calls == ["class", "method", "async"]
    assert client.post("/item/1").text == "posted"
    kit.invalidate("product:1")
    assert client.get("/admin/1").json == {"number": "1"}
    assert calls == ["class", "method", "async", "async"]


def test_a_private_response_is_not_given_to_who_waited_for_it(app):
    kit = CacheKit(app, cache=Cache(), options=HttpOptions(collapse=False))  # so that they wait at the view
    begun, go = threading.Event(), threading.Event()
    answers = []

    def answer():
        begun.set()
        assert go.wait(10)
        response = flask.make_response(flask.request.headers["X-Who"])
        response.cache_control.private = True
        return response

    counted(app, kit, route=answer)

    def ask(who):
        answers.append((who, app.test_client().get("/", headers={"X-Who": who}).text))

    waiting = threading.Event()
    kit.cache.events.subscribe(lambda event: kit.cache.events.counts[Kind.COLLAPSED] == 2 and waiting.set())
    threads = [threading.Thread(target=ask, args=(who,)) for who in ("ada", "bob", "eve")]
    threads[0].start()
    assert begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    assert waiting.wait(10)
    go.set()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [("ada", "ada"), ("bob", "bob"), ("eve", "eve")]


@pytest.fixture
def processes(server):
    """Two workers with one server and a view that answers when it may; ``ask(worker, path)`` runs behind."""
    calls, begun, go, threads = [], threading.Event(), threading.Event(), []

    def view(name):
        calls.append(name)
        begun.set()
        assert go.wait(60)  # for longer than a test is patient
        if name == "gone":
            flask.abort(404)
        response = flask.make_response(f"{name} {len(calls)}")
        response.cache_control.private = name == "own" or None
        return response

    def ask(worker, path):
        answers = []
        threads.append(threading.Thread(target=lambda: answers.append(apps[worker].test_client().get(path).text)))
        threads[-1].start()
        return answers

    apps, kits = [flask.Flask("shop"), flask.Flask("shop")], []
    for app in apps:
        cache = Cache(server.url, timeout=5.0)
        kits.append(CacheKit(app, cache=cache, options=HttpOptions(collapse=False)))
        app.add_url_rule("/<name>", "view", kits[-1].cached("1m")(view))
    yield SimpleNamespace(ask=ask, calls=calls, begun=begun, go=go, threads=threads, kits=kits)
    go.set()
    for thread in threads:
        thread.join(10)
    for kit in kits:
        kit.cache.close()


@pytest.mark.server
def test_processes_share_one_load_of_a_view(processes):
    first = processes.ask(0, "/a")
    assert processes.begun.wait(10)
    missed = threading.Event()
    processes.kits[1].cache.events.subscribe(lambda event: event.kind is Kind.MISS and missed.set())
    second = processes.ask(1, "/a")
    assert missed.wait(10)
    processes.go.set()
    for thread in processes.threads:
        thread.join(10)
    assert (first, second, processes.calls) == (["a 1"], ["a 1"], ["a"])


@pytest.mark.server
@pytest.mark.parametrize("name", ["own", "gone"])
def test_processes_do_not_wait_for_each_other_where_nothing_is_kept(processes, patient, name):
    processes.go.set()
    processes.ask(1, f"/{name}")
    processes.threads[0].join(10)
    processes.go.clear()
    processes.begun.clear()
    first = processes.ask(0, "/a")
    assert processes.begun.wait(10)
    second = processes.ask(1, "/a")
    patient(lambda: processes.calls == [name, "a", "a"])
    assert (first, second) == ([], [])


def test_errors_stay_what_they_are(app, kit):
    calls = counted(app, kit, "/raise", route=lambda: 1 / 0)
    counted(app, kit, "/abort", route=lambda: flask.abort(403))
    app.register_error_handler(403, lambda error: ("forbidden", 403))
    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/raise")
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=False)
    assert app.test_client().get("/raise").status_code == 500
    assert app.test_client().get("/abort").text == "forbidden"
    assert len(calls) == 2


def test_the_interactive_debugger_works_around_it(app, kit):
    from werkzeug.debug import DebuggedApplication
    from werkzeug.test import Client

    counted(app, kit, "/raise", route=lambda: 1 / 0)
    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=True)
    page = Client(DebuggedApplication(app)).get("/raise")
    assert page.status_code == 500
    assert "ZeroDivisionError" in page.text


def test_streams_and_files_pass_through(app, client):
    CacheKit(app, cache=Cache(), rules=[Rule("/**", ttl="1h")], compression=Compression(minimum=1))
    app.add_url_rule("/stream", "stream", _stream)
    app.add_url_rule("/file", "file", _file)
    source = Path(__file__).read_bytes()
    for _ in range(2):
        assert client.get("/stream").text == "a/stream"
        with client.get("/file") as answer:
            assert answer.data == source
        with client.get("/file", headers={"Range": "bytes=0-4"}) as part:
            assert (part.status_code, part.data) == (206, source[:5])


# -- functions and values ---------------------------------------------------------------------------------------------


def test_memoize(kit):
    calls = []

    @kit.memoize(50, args_to_ignore=["session"], tags=["sum"])
    def add(a, b=2, session=None):
        calls.append((a, b))
        return a + b

    assert (add(1), add(1, 2), add(1, session=object()), add(2)) == (3, 3, 3, 4)
    assert calls == [(1, 2), (2, 2)]
    kit.delete_memoized(add, 1)
    assert (add(1), add(2), len(calls)) == (3, 4, 3)
    kit.delete_memoized(add)
    assert (add(1), add(2), len(calls)) == (3, 4, 5)
    kit.delete_memoized_verhash(add)
    kit.invalidate("sum")
    assert (add(1), len(calls)) == (3, 6)
    assert add.uncached(1) == 3
    with pytest.raises(ConfigError, match="no memoized function"):
        kit.delete_memoized(len)


def test_memoized_functions_have_the_handles_that_their_type_promises(kit):
    calls = []

    @kit.memoize(50)
    def add(a, b=2):
        calls.append((a, b))
        return a + b

    assert (add.peek(1), add(1), add.peek(1, 2), add.peek_or("none", 5)) == (None, 3, 3, "none")
    add.invalidate(1)
    assert (add.peek(1), add.refresh(1), len(calls)) == (None, 3, 2)
    assert kit.cache.get(add.key_for(1)) == 3
    add.invalidate_all()
    assert add.peek(1) is None

    @kit.memoize(50)
    async def later(a):
        return a

    assert not hasattr(later, "ainvalidate")

    async def ask():
        assert (await later(1), await later.peek(1)) == (1, 1)
        await later.invalidate(1)
        assert await later.peek(1) is None

    asyncio.run(ask())


def test_the_handles_are_those_of_cached(kit):
    """One list of names stands for both kinds of functions."""

    def blocking(): ...

    async def later(): ...

    for fn in (blocking, later):
        handles = {name for name, one in vars(kit.cache.cached(fn)).items() if callable(one) and name[0] != "_"}
        assert {name for name in vars(kit.memoize()(fn)) if name[0] != "_"} == handles - {"counters"} | {"uncached"}


def test_a_function_that_is_no_view_returns_its_value(app, kit, client, caplog):
    """As Flask-Caching's users write it; what it makes is nothing that a view may keep, so it is not kept."""

    @kit.cached(timeout=50, key_prefix="all_comments")
    def comments():
        return ["first"]

    @app.get("/")
    def index():
        return repr(comments())

    for _ in range(2):
        assert client.get("/").text == "['first']"
        assert client.get("/", headers={"Cookie": "a=1"}).text == "['first']"
    assert comments() == ["first"]  # outside of any request
    assert caplog.text.count("decorate a function with @kit.memoize") == 1
    assert "comments" in caplog.text


def test_an_async_function_that_is_no_view(kit):
    @kit.cached(50)
    async def comments():
        return ["first"]

    assert asyncio.run(comments()) == ["first"]


def test_a_view_is_known_as_one_through_its_decorators(app, kit, client, caplog):
    def careless(view):
        def inner(**kwargs):
            return view(**kwargs)

        inner.__name__ = view.__name__
        return inner

    def careful(view):
        return functools.wraps(view)(lambda **kwargs: view(**kwargs))

    calls = []

    def view():
        calls.append(1)
        return str(len(calls))

    class Page(MethodView):
        @kit.cached(50)
        def get(self):
            return view()

    class Above(View):
        decorators = [careful, kit.cached(50), careful]

        def dispatch_request(self):
            return view()

    app.add_url_rule("/careless", "careless", careless(kit.cached(50)(view)))
    app.add_url_rule("/careful", "careful", careful(careful(kit.cached(50)(view))))
    app.add_url_rule("/page", view_func=Page.as_view("page"))
    app.add_url_rule("/above", view_func=Above.as_view("above"))
    for path in ("/careless", "/careful", "/page", "/above"):
        assert client.get(path).text == client.get(path).text, path
    assert (len(calls), caplog.text) == (4, "")


def test_memoized_methods(kit):
    calls = []

    class Tenant:
        def __init__(self, number):
            self.number = number

        def __cache_key__(self):
            return self.number

        @kit.memoize(ttl="5m")
        def plan(self, month):
            calls.append((self.number, month))
            return f"{self.number} in {month}"

    one, two = Tenant(1), Tenant(2)
    assert [one.plan("may"), one.plan("may"), two.plan("may")] == ["1 in may", "1 in may", "2 in may"]
    kit.delete_memoized(one.plan, "may")
    one.plan("may"), two.plan("may")
    assert calls == [(1, "may"), (2, "may"), (1, "may")]
    kit.delete_memoized(Tenant.plan)
    one.plan("may"), two.plan("may")
    assert len(calls) == 5


def test_what_a_method_returned_is_dropped_by_the_method(kit):
    """In each form that Flask-Caching takes."""

    class Adder:
        def __init__(self, number):
            self.number = number

        def __cache_key__(self):
            return self.number

        @kit.memoize(50)
        def add(self, other, more=0):
            return object()

        @kit.memoize(50)
        def total(self):
            return object()

        @kit.memoize(50)
        def join(self, other=None):
            return object()

        @classmethod
        @kit.memoize(50)
        def named(cls, name):
            return object()

    one, two = Adder(1), Adder(2)

    def dropped(*args, **kwargs):
        calls = {
            "one 3": lambda: one.add(3), "one 4": lambda: one.add(4), "two 3": lambda: two.add(3), "total": one.total,
            "two total": two.total, "named": lambda: Adder.named("a"), "join": lambda: one.join(one), "alone": one.join,
        }  # fmt: skip
        before = {name: call() for name, call in calls.items()}
        assert {name: call() for name, call in calls.items()} == before
        kit.delete_memoized(*args, **kwargs)
        return {name for name, call in calls.items() if call() is not before[name]}

    assert dropped(one.add, 3) == dropped(one.add, one, 3) == dropped(Adder.add, one, 3) == {"one 3"}
    assert dropped(one.add, other=3) == dropped(one.add, one, other=3) == {"one 3"}
    assert dropped(one.add) == dropped(Adder.add) == {"one 3", "one 4", "two 3"}
    assert dropped(one.total) == {"total"}
    assert dropped(one.join) == {"join", "alone"}
    assert dropped(one.join, one) == {"join", "alone"}, "the other, or the instance once more"
    assert dropped(Adder.named) == dropped(Adder.named, "a") == dropped(Adder.named, Adder, "a") == {"named"}
    for args in ((two, 3, 4, 5), (one, 3, 4, 5)):
        with pytest.raises(TypeError, match="too many"):
            kit.delete_memoized(one.add, *args)


def test_options_of_memoize(kit):
    import asyncio

    calls = []

    @kit.memoize(ttl="prices", cache_none=False)
    def nothing():
        calls.append("nothing")

    nothing(), nothing()
    assert len(calls) == 2

    @kit.memoize(ttl="5m", unless=lambda f, a: a == 0, forced_update=lambda a: a == 9, response_filter=lambda r: r != 5)
    def number(a):
        calls.append(a)
        return a

    calls.clear()
    for a in (0, 0, 1, 1, 5, 5, 9, 9):
        assert number(a) == a
    assert calls == [0, 0, 1, 5, 5, 9, 9]

    @kit.memoize(ttl="5m")
    async def later(a):
        calls.append(a)
        return a

    calls.clear()

    async def main():
        return [await later(1), await later(1)]

    assert (asyncio.run(main()), calls) == ([1, 1], [1])
    kit.delete_memoized(later)
    assert (asyncio.run(main()), calls) == ([1, 1], [1, 1])


def test_values(kit):
    assert kit.set("a", 1, timeout=60, tags=["letters"]) is True
    assert (kit.get("a"), kit.has("a"), kit.has("b"), kit.get("b", 7)) == (1, True, False, 7)
    assert (kit.add("a", 2), kit.add("b", 2, 60), kit.get("b")) == (False, True, 2)
    assert kit.get_many("a", "b", "c") == [1, 2, None]
    assert kit.get_dict("a", "c") == {"a": 1, "c": None}
    assert kit.set_many({"c": 3, "d": 4}, timeout=0) == ["c", "d"]
    assert (kit.delete("a"), kit.delete("a"), kit.delete_many("b", "c", "x")) == (True, False, 2)
    kit.invalidate("letters")
    assert kit.clear() is True
    assert kit.get("d") is None


# -- commands and signals ---------------------------------------------------------------------------------------------


def test_commands(app, server):
    warmer = Warmer(progress=False)
    kit = CacheKit(app, cache=Cache(server.url), warmer=warmer)
    warmer.add(lambda: kit.set("warm", 1))
    run = app.test_cli_runner().invoke
    kit.set("a", 1, tags=["letters"])
    assert json.loads(run(args=["cachekit", "stats"]).output)["store"] == "ok"
    assert run(args=["cachekit", "invalidate", "letters"]).output == "invalidated letters\n"
    assert kit.get("a") is None
    assert "1 done, 0 failed" in run(args=["cachekit", "warm"]).output
    assert kit.get("warm") == 1
    assert "Aborted" in run(args=["cachekit", "clear"], input="n\n").output
    assert run(args=["cachekit", "clear", "--yes"]).output == "cleared\n"
    assert kit.get("warm") is None
    assert "tag" in run(args=["cachekit", "invalidate", ""]).output
    kit.cache.close()


def test_a_command_says_what_it_cannot_reach(app, kit):
    done = app.test_cli_runner().invoke(args=["cachekit", "invalidate", "a"])
    assert (done.exit_code, "memory of each process" in done.output) == (1, True)
    assert app.test_cli_runner().invoke(args=["cachekit", "stats"]).exit_code == 0


def test_stats_of_a_store_that_cannot_be_reached(app):
    """The command is a process of its own: before it asks, it knows nothing of the store."""
    with CacheKit(app, cache=Cache(f"redis://127.0.0.1:{free_port()}")).cache:
        done = app.test_cli_runner().invoke(args=["cachekit", "stats"])
    assert done.exit_code == 1
    assert '"store": "away"' in done.output
    assert "cannot be reached" in done.output


def test_a_command_says_that_it_cannot_reach_a_private_server():
    app = flask.Flask("private")
    kit = CacheKit(app, cache=Cache("tiered+embedded://"))
    done = app.test_cli_runner().invoke(args=["cachekit", "clear", "--yes"])
    assert (done.exit_code, "on a server of its own" in done.output) == (1, True)
    kit.cache.close()


@pytest.mark.parametrize("args", [["invalidate", "a"], ["clear", "--yes"]])
def test_a_command_whose_store_is_away_fails(args):
    """What waits for the store ends with the command's process: nobody will deliver it."""
    app = flask.Flask("away")
    kit = CacheKit(app, cache=Cache(f"redis://127.0.0.1:{free_port()}"))
    done = app.test_cli_runner().invoke(args=["cachekit", *args])
    assert (done.exit_code, "the store is away, nothing was dropped" in done.output) == (1, True)
    kit.cache.close()


@pytest.mark.parametrize("name", ["cached", "memoize"])
def test_a_decorator_without_parentheses(kit, name):
    with pytest.raises(ConfigError, match=f"write @kit.{name}\\(\\)"):
        getattr(kit, name)(lambda: "text")


def test_signals(app, kit, client):
    other = flask.Flask("other")
    CacheKit(other, cache=Cache())
    counted(app, kit)
    heard = []

    def hear(sender, **what):
        heard.append((sender.name, str(what["event"].kind) if "event" in what else "hit"))

    with cache_hit.connected_to(hear, app), cache_miss.connected_to(hear, app), cache_stored.connected_to(hear, app):
        client.get("/"), client.get("/")
    views = [kind for name, kind in heard if name == "shop"]
    assert (len(views), len(heard)) == (len(heard), len(heard))
    assert views.count("hit") == 1
    assert {"miss", "stored"} <= {*views}


def test_given_options_win_over_settings(app):
    app.config.update(CACHEKIT_HTTP={"status_name": "config"}, CACHEKIT_COMPRESSION=True)
    CacheKit(app, cache=Cache(), options=HttpOptions(status_name="given"), compression=False)
    app.add_url_rule("/", "page", lambda: "x" * 1000)
    answer = app.test_client().get("/", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Cache-Status"].startswith("given")
    assert "Content-Encoding" not in answer.headers


def test_the_page_of_an_error_is_not_kept(app):
    from werkzeug.debug import DebuggedApplication

    calls = []

    @app.get("/")
    def wrong():
        calls.append(1)
        raise ValueError(f"secret {len(calls)}")

    app.config.update(TESTING=False, PROPAGATE_EXCEPTIONS=True)
    app.wsgi_app = DebuggedApplication(app.wsgi_app, evalex=False)
    CacheKit(app, cache=Cache(), rules=[Rule("/**", ttl="1h")], compression=True)
    pages = [app.test_client().get("/") for _ in range(2)]
    assert [page.status_code for page in pages] == [500, 500]
    assert "secret 1" in pages[0].text
    assert "secret 2" in pages[1].text


@pytest.mark.filterwarnings("ignore")  # of the toolbar
@pytest.mark.parametrize("first", ["kit", "toolbar"])
def test_the_debug_toolbar(app, first):
    toolbar = pytest.importorskip("flask_debugtoolbar")
    calls = []
    app.debug = True
    app.secret_key = "dev"

    def install():
        return CacheKit(app, cache=Cache(), compression=Compression(minimum=1), sessions=True)

    kit = install() if first == "kit" else None
    toolbar.DebugToolbarExtension(app)
    kit = kit or install()

    @app.get("/")
    @kit.cached(ttl="5m")
    def page():
        calls.append(1)
        return "<html><body>hello</body></html>"

    client = app.test_client()
    for _ in range(2):
        answer = client.get("/")
        assert answer.status_code == 200
        assert "hello" in answer.text
        assert "flDebug" in answer.text
    assert len(calls) == 1, "the toolbar is added to what the view was kept as"
