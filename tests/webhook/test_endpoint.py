"""The endpoint, through both edges, on each kind of store."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from wsgiref.validate import validator

import pytest

from cachekit import Cache, ConfigError, Kind
from cachekit._io import ASYNCIO
from cachekit.testing import ManualClock
from cachekit.webhook import Webhook, asgi, sign, wsgi
from tests.cdn.stand_in import Answer, StandIn

SECRET = "correct horse battery"
UPDATE = {"event": "product.updated", "data": {"id": 42, "category_id": 7}, "changed": ["price"]}


class Site:
    """The endpoint behind one of the edges."""

    def __init__(self, kind: str, cache: Cache, webhook: Webhook) -> None:
        self.kind, self.cache = kind, cache
        self.runner = asyncio.Runner()
        self.app = (asgi if kind == "asgi" else wsgi).WebhookApp(webhook, cache)

    def send(self, body: bytes, headers=(), method: str = "POST", length: int | None = -1):
        length = len(body) if length == -1 else length
        return (
            self._asgi(body, headers, method, length)
            if self.kind == "asgi"
            else self._wsgi(body, headers, method, length)
        )

    def deliver(self, document, *, id="d1", secret=SECRET, now=None, **options):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        now = self.cache.clock() if now is None else now
        return self.send(body, sign(secret, body, delivery_id=id, now=now), **options)

    def _asgi(self, body, headers, method, length):
        fields = [(n.lower().encode(), v.encode()) for n, v in headers]
        if length is not None:
            fields.append((b"content-length", str(length).encode()))
        pieces = [body[i : i + 7] for i in range(0, len(body), 7)] or [b""]
        messages = [
            {"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1} for i, piece in enumerate(pieces)
        ]
        sent = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": "/x", "headers": fields}
        self.runner.run(self.app(scope, receive, send))
        found = {n.decode(): v.decode() for n, v in sent[0]["headers"]}
        return sent[0]["status"], found, sent[1]["body"]

    def _wsgi(self, body, headers, method, length):
        environ = {
            "REQUEST_METHOD": method, "PATH_INFO": "/x", "SCRIPT_NAME": "", "SERVER_NAME": "h", "SERVER_PORT": "80",
            "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO(), "wsgi.multithread": True,
            "wsgi.multiprocess": False, "wsgi.run_once": False,
        }  # fmt: skip
        environ.update({f"HTTP_{n.upper().replace('-', '_')}": v for n, v in headers})
        if length is not None:
            environ["CONTENT_LENGTH"] = str(length)
        else:
            environ["wsgi.input_terminated"] = True
        got = []

        def start_response(status, fields, exc_info=None):
            got.append((int(status[:3]), {n.lower(): v for n, v in fields}))
            return lambda data: None

        app = self.app if length is None else validator(self.app)
        answer = app(environ, start_response)
        content = b"".join(answer)
        if hasattr(answer, "close"):
            answer.close()
        return (*got[0], content)

    def close(self) -> None:
        if self.kind == "asgi":
            self.runner.run(self.cache._close(ASYNCIO))
        else:
            self.cache.close()
        self.runner.close()


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request) -> str:
    return request.param


@pytest.fixture(params=["memory", "valkey", "redis", "tiered"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "memory":
        return "memory://"
    server = request.getfixturevalue("redis_server" if request.param == "redis" else "valkey")
    with server.client() as client:
        client.flushall()
    return f"tiered+{server.url}" if request.param == "tiered" else server.url


@pytest.fixture
def site(kind: str, url: str, clock: ManualClock, watch) -> Iterator[Site]:
    made = Site(kind, Cache(url, clock=clock, timeout=5, observers=[watch]), Webhook(SECRET, max_body=4096))
    yield made
    made.close()


@pytest.fixture
def plain(kind: str, clock: ManualClock, watch) -> Iterator[Site]:
    """Where the store makes no difference."""
    made = Site(kind, Cache(clock=clock, observers=[watch]), Webhook([SECRET, "the older secret"], max_body=4096))
    yield made
    made.close()


def test_a_delivery_invalidates_and_says_what(site: Site) -> None:
    site.cache.set("page", 1, tags=["product:42"])
    site.cache.set("other", 2, tags=["product:43"])
    status, headers, body = site.deliver(UPDATE)
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "id": "d1", "event": "product.updated", "invalidated": ["product:42", "search-results"], "repeated": False
    }  # fmt: skip
    assert (site.cache.get("page"), site.cache.get("other")) == (None, 2)


def test_a_repeated_delivery_is_answered_but_not_carried_out(site: Site, watch, clock: ManualClock) -> None:
    first = json.loads(site.deliver(UPDATE)[2])
    site.cache.set("page", 1, tags=["product:42"])
    clock.advance(20)
    again = site.deliver(UPDATE)  # signed anew, as senders do
    assert (again[0], json.loads(again[2])) == (200, {**first, "repeated": True})
    assert site.cache.get("page") == 1
    assert len(watch.of(Kind.INVALIDATED)) == 1


def test_the_same_content_under_another_id_is_a_replay(site: Site, clock: ManualClock) -> None:
    """The id is not signed by default: who listens in could give an old delivery a new one."""
    body = json.dumps(UPDATE).encode()
    headers = sign(SECRET, body, delivery_id="d1", now=clock())
    assert site.send(body, headers)[0] == 200
    forged = [(n, "d2" if n == "X-Webhook-Id" else v) for n, v in headers]
    status, _, answer = site.send(body, forged)
    assert (status, "replayed" in json.loads(answer)["error"]) == (401, True)
    clock.advance(1)
    assert site.deliver(UPDATE, id="d2")[0] == 200  # the same event once more, signed in its own right


def test_an_id_used_for_another_body_is_refused(site: Site) -> None:
    assert site.deliver(UPDATE)[0] == 200
    status, _, answer = site.deliver({**UPDATE, "data": {"id": 43, "category_id": 7}})
    assert (status, "another body" in json.loads(answer)["error"]) == (401, True)


def test_without_an_id_the_content_is_the_name(plain: Site, clock: ManualClock) -> None:
    body = json.dumps(UPDATE).encode()
    headers = sign(SECRET, body, now=clock())
    assert json.loads(plain.send(body, headers)[2])["repeated"] is False
    assert json.loads(plain.send(body, headers)[2])["repeated"] is True


@pytest.mark.parametrize(
    ("name", "body", "options", "status"),
    [
        ("wrong secret", UPDATE, {"secret": "another secret"}, 401),
        ("rotated secret", UPDATE, {"secret": "the older secret"}, 200),
        ("not JSON", b"{", {}, 400),
        ("not UTF-8", b'"\xff"', {}, 400),
        ("empty", b"", {}, 400),
        ("nested without end", b"[" * 4000, {}, 400),
        ("a list", [UPDATE], {}, 422),
        ("a number", 5, {}, 422),
        ("null", None, {}, 422),
        ("unknown event", {"event": "product.renamed"}, {}, 422),
        ("no object", {"event": "product.updated"}, {}, 422),
        ("no id", {"event": "product.updated", "data": {}}, {}, 422),
        ("too large", b"x" * 4097, {}, 413),
        ("too large, no length", b"x" * 4097, {"length": None}, 413),
        ("as large as may be", b" " * 4000 + json.dumps({"a": 1}).encode(), {}, 422),
        ("truncated", UPDATE, {"length": 4000}, 400),
        ("GET", UPDATE, {"method": "GET"}, 405),
        ("PUT", UPDATE, {"method": "PUT"}, 405),
        ("HEAD", UPDATE, {"method": "HEAD"}, 405),
        ("no length", UPDATE, {"length": None}, 200),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_status_codes(plain: Site, watch, name: str, body, options: dict, status: int) -> None:
    got, headers, content = plain.deliver(body, **options)
    assert got == status, content
    assert (headers.get("allow") == "POST") is (status == 405)
    assert not content if options.get("method") == "HEAD" else json.loads(content)
    assert len(watch.of(Kind.INVALIDATED)) == (status == 200)


def test_missing_and_old_signatures(plain: Site, clock: ManualClock) -> None:
    body = json.dumps(UPDATE).encode()
    assert plain.send(body)[0] == 401
    assert plain.deliver(UPDATE, now=clock() - 301)[0] == 401
    assert plain.deliver(UPDATE, now=clock() + 302)[0] == 401


def test_a_refused_delivery_can_be_sent_again(plain: Site) -> None:
    assert plain.deliver(b"{")[0] == 400
    assert plain.deliver(UPDATE)[0] == 200


def test_an_event_that_drops_nothing_is_fine(plain: Site, watch) -> None:
    from cachekit.webhook import Effect, Events

    plain.app.webhook.events = Events({"e": Effect([], {"price": ["x"]})})
    status, _, body = plain.deliver({"event": "e", "data": {}, "changed": ["stock"]})
    assert (status, json.loads(body)["invalidated"]) == (200, [])
    assert not watch.of(Kind.INVALIDATED)


def test_while_the_store_is_away_the_sender_is_asked_to_repeat(
    kind: str, own_server, clock: ManualClock, patient
) -> None:
    site = Site(kind, Cache(own_server.url, clock=clock, timeout=0.5), Webhook(SECRET))
    site.cache.set("page", 1, tags=["product:42"])
    own_server.stop()
    status, headers, body = site.deliver(UPDATE)
    assert (status, headers["retry-after"]) == (503, "5")
    assert json.loads(body)["invalidated"] == ["product:42", "search-results"]
    own_server.start()
    clock.advance(20)
    status, _, body = site.deliver(UPDATE)
    if status == 503:  # what was kept is delivered first; the sender comes again
        clock.advance(20)
        status, _, body = site.deliver(UPDATE)
    assert (status, json.loads(body)["repeated"]) == (200, False)
    assert site.cache.stats().pending == 0
    site.close()


def test_the_cdn_is_purged(kind: str, clock: ManualClock) -> None:
    from cachekit import Cloudflare, PurgeOptions

    cdn = StandIn(Answer(200, {"success": True}))
    purger = Cloudflare(zone="z", token="t", base_url=cdn.url)
    site = Site(kind, Cache(purgers=[purger], purging=PurgeOptions(delay=0, rebound=0), clock=clock), Webhook(SECRET))
    try:
        assert site.deliver(UPDATE)[0] == 200
        assert site.cache.flush_purges()
        assert sorted(cdn.seen[0].json["tags"]) == ["product:42", "search-results"]
    finally:
        site.close()
        cdn.close()


def test_a_sender_that_leaves_is_not_answered(clock: ManualClock) -> None:
    app = asgi.WebhookApp(Webhook(SECRET), Cache(clock=clock))
    messages = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send))
    assert sent == []


def test_a_fault_is_no_success(plain: Site, monkeypatch) -> None:
    async def broken(io, tags):
        raise RuntimeError("a bug")

    monkeypatch.setattr(plain.cache, "drop_tags", broken)
    status, headers, _ = plain.deliver(UPDATE)
    assert (status, headers["retry-after"]) == (500, "5")
    monkeypatch.undo()
    assert json.loads(plain.deliver(UPDATE)[2])["repeated"] is False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "x"}, "path="),
        ({"max_body": 0}, "max_body="),
        ({"remember": "1m"}, "remember"),
        ({"events": 5}, "events="),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Webhook(SECRET, **options)
