"""What goes past the cache is sent as it would be through it, drops what it must, and is looked at again in time."""

from __future__ import annotations

import pytest

from cachekit.http.rules import Rule
from tests.http.conftest import Answer

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
