"""What goes past the cache is sent as it would be through it, drops what it must, and is looked at again in time."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from cachekit import Cache
from cachekit.http.options import HttpOptions
from cachekit.http.rules import Rule
from tests.http.conftest import Answer, AsgiSite

REFUSED = [("Cache-Control", "no-store")]


def test_what_turns_cacheable_is_stored_one_forward_later(site):
    site.setup(rules=[Rule("/x", cache_control="max-age=60", tags=["t"])])
    site.answer(REFUSED)
    for _ in range(3):
        assert site.get().cache_status == "cachekit; fwd=uri-miss"
    site.answer(Answer())
    got = site.get()
    assert (got.cache_status, got.get("cache-control")) == ("cachekit; fwd=uri-miss", "max-age=60")
    assert got.get("cache-tag") == "t"
    assert "stored" in site.get().cache_status
    assert site.get().hit


@pytest.mark.parametrize("change", ["max-age=60", "no-store, must-understand, max-age=60"])
def test_a_change_of_cache_control_is_noticed(site, change):
    site.answer(REFUSED)
    site.get()
    site.says(change)
    site.get()
    assert "stored" in site.get().cache_status
    assert site.get().hit


def test_what_goes_past_asks_the_store_nothing(build, fake):
    site = build(fake)
    site.answer(REFUSED)
    site.get()
    fake.log.clear()
    for _ in range(3):
        assert site.get().status == 200
    assert fake.log == []
    site.clock.advance(11)
    site.get()
    assert ("read", "http:https://example.org/x") in fake.log


def test_why_it_goes_past_is_said_as_often_as_it_does(build, fake, monkeypatch):
    """A page that is stored for strangers, and asked for with a cookie, as where all of it is on a server."""
    monkeypatch.setattr(fake, "peek", lambda key: None)
    site = build(fake)
    site.answer([("Cache-Control", "max-age=60")])
    assert "stored" in site.get().cache_status
    for control, times in (("private", 3), ("max-age=60", 1)):  # the last has to be told more than was expected
        site.answer([("Cache-Control", control)])
        got = [site.get(cookie="session=1").cache_status for _ in range(times)]
        assert got == ["cachekit; fwd=bypass"] * times
    assert site.get().hit


def test_what_is_stored_to_be_validated_is_looked_up(build, fake, monkeypatch):
    monkeypatch.setattr(fake, "peek", lambda key: None)  # as where all of it is on a server
    site = build(fake)
    site.answer([("Cache-Control", "no-cache"), ("ETag", '"a"')])
    assert "stored" in site.get().cache_status
    fake.log.clear()
    site.get()
    assert ("read", "http:https://example.org/x") in fake.log
    assert site.seen[1].get("if-none-match") == '"a"'


@pytest.mark.parametrize("headers", [[("cache-control", "no-cache")], [("range", "bytes=0-1")], [("cookie", "a=1")]])
def test_other_requests_are_looked_up_all_the_same(build, fake, headers):
    site = build(fake)
    site.answer(REFUSED)
    site.get()
    fake.entries.clear()
    got = site.request(headers=headers)
    assert "fwd=" in got.cache_status


def test_a_stored_response_of_another_process_waits_no_longer_than_the_memory(build, fake):
    site = build(fake)
    site.answer(REFUSED, [("Cache-Control", "max-age=60")])
    site.get()
    site.clock.advance(11)
    site.get()
    assert site.get().hit


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(("status", "dropped"), [(200, True), (204, True), (302, True), (404, False), (500, False)])
def test_unsafe_methods_drop_on_success(site, method, status, dropped):
    site.says("max-age=60")
    site.get()
    site.answer(Answer(status=status, body=b""))
    got = site.request(method)
    assert (got.status, got.cache_status) == (status, "cachekit; fwd=method")
    site.says("max-age=60")
    assert site.get().hit is not dropped


@pytest.mark.parametrize("status", ["2xx", "", "20"])
def test_a_malformed_head_passes(edge, cache, status):
    if edge != "wsgi":
        pytest.skip("status codes are numbers in ASGI")
    from cachekit.http.wsgi import HttpCache
    from tests.http.conftest import environ_of

    def app(environ, start_response):
        start_response(status, [("X", "y")])
        return [b"a"]

    sent = []
    assert list(HttpCache(app, cache)(environ_of("POST", "/x", []), lambda *args: sent.append(args))) == [b"a"]
    assert sent[0][0] == status


def test_a_broken_cache_drops_nothing_and_breaks_nothing(build, fake):
    site = build(fake)
    fake.raises.add("drop")
    assert site.request("POST").body == b"body"


PATHS = ["/x", "/x?a=1", "/%C3%A9", "/a%2Fb", "/a//b", "/~a.b-c_d", "/a;b", "/a%20b"]


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("kept_by", ["this", "another"])
def test_what_is_stored_anywhere_in_the_memory_is_dropped(build, clock, target, kept_by):
    """Nothing is done for a path that nobody stored: whoever stored, under whatever spelling, is noticed."""
    cache = Cache("memory://", clock=clock)
    first, second = build(cache), build(cache)
    first.setup(purge_urls=True)
    first.says("max-age=60")
    second.says("max-age=60")
    second.request("POST", target)  # nothing there yet
    (first if kept_by == "another" else second).get(target)
    assert first.get(target).hit
    second.request("POST", target)
    assert not first.get(target).hit


@pytest.mark.parametrize("named", ["location", "content-location"])
def test_what_a_response_names_is_dropped_although_nothing_is_at_its_own_url(site, named):
    site.says("max-age=60")
    site.get("/named")
    site.says("max-age=60", headers=[(named, "/named")])
    site.request("POST", "/other")
    assert not site.get("/named").hit


def test_what_is_being_made_while_it_is_changed_is_not_stored(site):
    other = AsgiSite(site.cache, site.clock)  # it has stored nothing itself
    other.says("no-store")

    def change():
        with ThreadPoolExecutor() as pool:  # a loop runs here already
            assert pool.submit(other.request, "POST", "/x").result(10).status == 200

    site.answer(
        Answer(headers=[("Cache-Control", "max-age=60")], before=change),
        Answer(headers=[("Cache-Control", "max-age=60")]),
    )
    site.get("/x")
    assert not site.get("/x").hit
    assert site.get("/x").hit
    other.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_fields_that_can_be_read_once_are_read_once(method):
    from cachekit.http.asgi import HttpCache

    sent = []

    async def app(scope, receive, send):
        headers = iter([(b"cache-control", b"no-store"), (b"x", b"y")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a"})

    async def send(message):
        sent.append(message)

    async def job():
        site = HttpCache(app, Cache("memory://"), options=HttpOptions(emit_tags="none"))
        for _ in range(3):
            scope = {"type": "http", "method": method, "scheme": "http", "path": "/x", "raw_path": b"/x",
                     "query_string": b"", "headers": [(b"host", b"a")]}  # fmt: skip
            await site(scope, None, send)

    asyncio.run(job())
    heads = [list(message["headers"]) for message in sent if "headers" in message]
    assert [(b"x", b"y") in head and head[-1][0] == b"cache-status" for head in heads] == [True] * 3


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_an_application_that_rewrites_its_request_in_place_drops_what_was_asked_for(build, edge, kind):
    """Mounts, prefixes and languages are often taken off the path in the very scope or environ that came."""
    if kind != edge:
        pytest.skip("one edge at a time")
    site = build(Cache("memory://"))
    site.says("max-age=60")
    site.get("/de/x")
    inner = site.app.app

    async def asgi_app(scope, receive, send):
        scope["path"], scope["raw_path"] = "/x", b"/x"
        await inner(scope, receive, send)

    def wsgi_app(environ, start_response):
        environ["PATH_INFO"] = "/x"
        return inner(environ, start_response)

    site.app.app = asgi_app if kind == "asgi" else wsgi_app
    assert site.get("/de/x").hit
    site.request("POST", "/de/x")
    assert not site.get("/de/x").hit


@pytest.mark.parametrize("location", ["/y", "https://example.org/y"])
def test_a_path_of_which_nothing_is_known_names_another(site, location):
    site.says("max-age=60")
    site.get("/y")
    site.answer(Answer(status=201, headers=[("LOCATION", location)]))
    site.request("POST", "/never-seen")
    site.says("max-age=60")
    assert not site.get("/y").hit
