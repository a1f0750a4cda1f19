"""A broken cache never breaks a response. Each row goes through both edges."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cachekit.http.rules import Rule
from tests.http.conftest import Answer

CC = "Cache-Control"
METHODS = ["peek", "read", "begin", "commit", "release", "drop"]


@pytest.mark.parametrize("method", METHODS)
def test_a_port_that_raises(build, fake, method):
    site = build(fake)
    site.says("max-age=60")
    site.get()
    fake.raises = {method}
    for _ in range(2):
        got = site.get()
        assert (got.status, got.body) == (200, b"body")
        assert site.get("/y").body == b"body"
        site.answer([(CC, "no-store")])
        assert site.get("/z").status == 200
        assert site.request("POST").status == 200
        site.says("max-age=60")
    fake.raises = set()
    assert site.get("/w").status == 200
    assert site.get("/w").hit


def test_everything_raises_at_once(build, fake):
    site = build(fake)
    fake.raises = set(METHODS)
    for _ in range(3):
        assert site.get().body == b"body"
    assert fake.events.counts["store-error"] >= 3


def test_the_store_is_away(build, fake):
    site = build(fake)
    site.says("max-age=60")
    fake.away = True
    fake.peek = lambda key: None
    for _ in range(2):
        got = site.get()
        assert (got.status, got.cache_status) == (200, "cachekit; fwd=uri-miss")


def test_another_process_leads(build, fake):
    site = build(fake)
    site.says("max-age=60")
    fake.other_leads = True
    assert "stored" not in site.get().cache_status
    assert not fake.entries
    assert not [name for name, _ in fake.log if name in ("commit", "release")]


def test_a_ticket_is_always_given_back(build, fake):
    site = build(fake)
    answers = [
        Answer(headers=[(CC, "no-store")]),
        Answer(500),
        Answer(headers=[(CC, "max-age=60"), ("Content-Length", "99")]),
        Answer(headers=[(CC, "max-age=60")]),
        Answer(error=ValueError("x")),
        Answer(headers=[(CC, "max-age=60")], body=[b"a", b"b"], breaks=ValueError("x")),
    ]
    for at, answer in enumerate(answers):
        site.answer(answer)
        try:
            site.get(f"/{at}")
        except ValueError:
            pass
        assert not fake.held


def test_what_was_invalidated_meanwhile_is_not_kept(build, fake):
    site = build(fake)
    site.says("max-age=60")
    fake.refuses = True
    assert site.get().body == b"body"
    assert not site.get().hit


def test_observers_that_raise(build, fake):
    def broken(event):
        raise RuntimeError

    fake.events = broken
    site = build(fake)
    site.says("max-age=60")
    site.get()
    assert site.get().hit


ODD_REQUESTS = [
    {"cache-control": "max-age=,,=;=\x80"}, {"cache-control": '"'}, {"if-none-match": '"'}, {"if-none-match": ",,W/"},
    {"if-modified-since": "\x80"}, {"accept-encoding": ";;q=,"}, {"range": "x"}, {"content-length": "x"},
    {"forwarded": '"'},
    {"cookie": "\xff\xfe"}, {"authorization": ""}, {"host": ""}, {"host": "[::1]"}, {"host": "a:99999999"},
    {"connection": ",,,"}, {"pragma": '"no-cache'}, {"cache-status": "x"}, {"x-forwarded-host": "\xe9 #"},
]  # fmt: skip
ODD_RESPONSES = [
    [(CC, "max-age=60, ")], [(CC, '"'), (CC, "max-age=60")], [(CC, "=")], [("Vary", ",,"), (CC, "max-age=60")],
    [("ETag", '"'), (CC, "max-age=60")], [("ETag", "W/"), (CC, "max-age=0, stale-if-error=5")],
    [("Date", "\x80"), ("Expires", "\x80"), ("Age", "\x80"), (CC, "max-age=60")], [("Surrogate-Control", ";;+")],
    [("CDN-Cache-Control", '"'), (CC, "max-age=60")], [("Surrogate-Control", "max-age=1+"), (CC, "x")],
    [("Content-Length", "\x80"), (CC, "max-age=60")], [("Last-Modified", "x"), (CC, "max-age=60")],
    [("Cache-Tag", "%%%,%zz"), (CC, "max-age=60")], [("Set-Cookie", ""), (CC, "max-age=60")],
    [("Location", "//[")], [("Connection", "\x80"), (CC, "max-age=60")], [("Expires", "Thu, 01 Jan 9999 00:00:00 GMT")],
    [("Expires", "Thu, 31 Feb 2030 00:00:00 GMT")], [("Expires", "Thu, 01 Jan 0000 00:00:00 GMT")],
]  # fmt: skip


@pytest.mark.parametrize("request_", ODD_REQUESTS, ids=repr)
def test_odd_requests(build, cache, request_):
    site = build(cache)
    if site.kind == "wsgi-validated":
        pytest.skip("the validator refuses them")
    site.setup([Rule("/x", ttl=60)], status_detail=True, status_key=True)
    for method in ("GET", "GET", "HEAD", "POST"):
        assert site.request(method, "/x", request_).status == 200


@pytest.mark.parametrize("headers", ODD_RESPONSES, ids=repr)
def test_odd_responses(build, cache, clock, headers):
    site = build(cache)
    if site.kind == "wsgi-validated":
        pytest.skip("the validator refuses them")
    site.setup([Rule("/x", ttl=60, cache_control="max-age=5", tags=["t"])], emit_tags="all")
    for method in ("GET", "GET", "POST", "GET"):
        site.answer(headers)
        got = site.request(method, "/x", {"if-none-match": '"a"'})
        assert got.status == 200
        for pair in headers:
            if pair[0] not in ("Age", "Connection"):
                assert pair[1] in got.all(pair[0])
        clock.advance(61)


def test_nothing_of_it_is_logged_as_an_error_when_nothing_is_wrong(site, caplog):
    site.says("max-age=60")
    site.get()
    site.get()
    assert not caplog.records


def test_another_process_was_faster(build, fake):
    """The entry appears between the look and the ticket: it is served, and the right to store is given back."""
    site = build(fake)
    site.says("max-age=60")
    site.get()
    (key, entry) = next(iter(fake.entries.items()))
    fake.entries.clear()
    begin = fake.begin

    async def faster(io, key, tags=(), *, lease=30.0):
        ticket = await begin(io, key, tags, lease=lease)
        fake.entries[key] = entry
        return replace(ticket, found=entry)

    fake.begin = faster
    got = site.get()
    assert (got.hit, site.forwards) == (True, 1)
    assert not fake.held
    assert len(site.app._driver._flights if site.kind != "wsgi-validated" else ()) == 0


def test_what_another_process_found_may_be_for_others(build, fake):
    site = build(fake)
    site.says("max-age=60", headers=[("Vary", "Accept")])
    site.get(accept="a")
    entry = next(iter(fake.entries.values()))
    fake.entries.clear()
    begin = fake.begin

    async def faster(io, key, tags=(), *, lease=30.0):
        fake.begin = begin
        ticket = await begin(io, key, tags, lease=lease)
        fake.entries[key] = entry
        return replace(ticket, found=entry)

    fake.begin = faster
    got = site.get(accept="b")
    assert (got.status, "stored" in got.cache_status) == (200, False)
    assert not fake.held
    assert "stored" in site.get(accept="b").cache_status


def test_another_process_revalidates(build, fake, clock):
    site = build(fake)
    site.says("max-age=60, stale-while-revalidate=60")
    site.get()
    clock.advance(61)
    fake.other_leads = True
    for _ in range(2):
        assert site.get().hit
        site.settle()
    assert site.forwards == 1
    fake.other_leads = False
    assert site.get().hit
    site.settle()
    assert site.forwards == 2


@pytest.mark.parametrize("fault", ["start", "finish", "failed", "decision"])
def test_a_fault_of_the_cache_itself(build, fake, clock, monkeypatch, fault):
    from cachekit.http.exchange import Exchange

    site = build(fake)
    site.says("max-age=60, stale-if-error=60")
    site.get()
    clock.advance(61)

    def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(Exchange, fault, broken)
    assert site.get().body == b"body"
    site.answer(Answer(error=KeyError("x")))
    with pytest.raises(KeyError):
        site.get("/y")
    assert not fake.held
