"""The status page, through both edges: who may see it, what it shows, and that nothing shown can become markup."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser

import httpx
import pytest

from cachekit import Cache, ConfigError, StoreError, Varnish
from cachekit import asgi as asgi_kit
from cachekit import wsgi as wsgi_kit
from cachekit.cdn.options import PurgeStatus
from cachekit.dashboard import Dashboard
from cachekit.dashboard import asgi as asgi_edge
from cachekit.dashboard import wsgi as wsgi_edge
from cachekit.dashboard.figures import Shown
from cachekit.dashboard.page import render
from cachekit.observe.hotkeys import HotKey, HotKeys
from cachekit.sessions import SessionOptions, Sessions
from cachekit.stats import Figures, Stats

PASSWORD = "correct horse battery"
AUTH = httpx.BasicAuth("anybody", PASSWORD)
EVIL = "<img src=x onerror=alert(1)>'\"&</script>"


def plain_wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the application"]


async def plain_asgi(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the application"})


class Site:
    """Applications of one edge, asked as if both blocked."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def page(self, cache: Cache, dashboard: Dashboard):
        return (asgi_edge if self.kind == "asgi" else wsgi_edge).DashboardApp(dashboard, cache)

    def kit(self, cache: Cache, dashboard: Dashboard):
        if self.kind == "asgi":
            return asgi_kit.CacheKit(plain_asgi, cache=cache, dashboard=dashboard)
        return wsgi_kit.CacheKit(plain_wsgi, cache=cache, dashboard=dashboard)

    def ask(self, app, url: str = "/-/cachekit", method: str = "GET", **options) -> httpx.Response:
        if self.kind == "wsgi":
            with httpx.Client(transport=httpx.WSGITransport(app), base_url="http://a") as client:
                return client.request(method, url, **options)

        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
                return await client.request(method, url, **options)

        return asyncio.run(ask())


@pytest.fixture(params=["asgi", "wsgi"])
def site(request: pytest.FixtureRequest) -> Site:
    return Site(request.param)


@pytest.fixture
def guarded() -> Dashboard:
    return Dashboard("/-/cachekit", password=PASSWORD)


@pytest.fixture
def public() -> Dashboard:
    return Dashboard("/-/cachekit", public=True)


# -- who may see it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "/x"}, "anybody could see it"),
        ({"path": "/x", "public": False}, "anybody could see it"),
        ({"path": "/x", "public": 1}, "public=1 must be"),
        ({"path": "/x", "public": True, "password": PASSWORD}, "contradict"),
        ({"path": "/x", "public": True, "allow": bool}, "contradict"),
        ({"path": "/x", "password": ""}, "at least 12 characters"),
        ({"path": "/x", "password": "x" * 11}, "at least 12 characters"),
        ({"path": "/x", "password": b"x" * 20}, "must be text"),
        ({"path": "/x", "allow": "yes"}, "callable"),
        ({"path": "x", "public": True}, "path='x'"),
        ({"path": "/", "public": True}, "path='/'"),
        ({"path": "/x?y", "public": True}, "path="),
        ({"path": "/x", "public": True, "refresh": -1}, "refresh=-1"),
        ({"path": "/x", "public": True, "refresh": "2s"}, "refresh="),
        ({"path": "/x", "public": True, "hot_keys": 5}, "hot_keys=5"),
        ({"path": "/x", "public": True, "sessions": 5}, "sessions=5"),
        ({"path": "/x", "public": True, "title": 5}, "title=5"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, said) -> None:
    with pytest.raises(ConfigError, match=said):
        Dashboard(**options)


def test_a_password_is_asked_for(site: Site, cache: Cache, guarded: Dashboard) -> None:
    app = site.page(cache, guarded)
    assert site.ask(app, auth=AUTH).status_code == 200
    wrong = [
        {},
        {"auth": ("anybody", PASSWORD + "x")},
        {"auth": ("anybody", "")},
        {"auth": (PASSWORD, "")},
        {"headers": {"Authorization": f"Bearer {PASSWORD}"}},
        {"headers": {"Authorization": "Basic"}},
        {"headers": {"Authorization": "Basic !!!"}},
        {"headers": {"Authorization": "Basic " + b64encode(PASSWORD.encode()).decode()}},
    ]
    for options in wrong:
        for url in ("/-/cachekit", "/-/cachekit.json", "/-/cachekit?format=json"):
            answer = site.ask(app, url, **options)
            assert (answer.status_code, "hit" in answer.text) == (401, False)
            assert answer.headers["www-authenticate"] == 'Basic realm="cachekit", charset="UTF-8"'
            assert answer.headers["cache-control"] == "no-store"


def test_a_password_may_be_any_text(site: Site, cache: Cache) -> None:
    password = "p\N{LATIN SMALL LETTER A WITH DIAERESIS}ss:w\N{SNOWMAN}rd: long"
    app = site.page(cache, Dashboard("/x", password=password))
    encoded = b64encode(f"me:{password}".encode()).decode()
    assert site.ask(app, headers={"Authorization": f"basic {encoded}"}).status_code == 200


def test_two_authorizations_are_none(cache: Cache, guarded: Dashboard) -> None:
    good = "Basic " + b64encode(f"a:{PASSWORD}".encode()).decode()
    site = Site("asgi")
    answer = site.ask(site.page(cache, guarded), headers=[("Authorization", good), ("Authorization", good)])
    assert answer.status_code == 401
    assert site.ask(site.page(cache, guarded), headers={"Authorization": b"Basic \xff\xfe"}).status_code == 401


def test_a_check_of_ones_own(site: Site, cache: Cache) -> None:
    seen = []

    def allow(request):
        seen.append(request)
        return "1" if b"x-no" in dict(request.get("headers", ())) or "HTTP_X_NO" in request else True

    app = site.page(cache, Dashboard("/-/cachekit", allow=allow))
    assert site.ask(app).status_code == 200
    assert site.ask(app, headers={"X-No": "1"}).status_code == 403  # only True is yes
    assert ("type" in seen[0]) == (site.kind == "asgi")


def test_both_must_agree(site: Site, cache: Cache) -> None:
    app = site.page(cache, Dashboard("/-/cachekit", password=PASSWORD, allow=lambda _: False))
    assert [site.ask(app).status_code, site.ask(app, auth=AUTH).status_code] == [401, 403]


def test_a_check_that_fails_shows_nothing(cache: Cache) -> None:
    site = Site("wsgi")
    app = site.page(cache, Dashboard("/-/cachekit", allow=lambda _: {}["key"]))
    with pytest.raises(KeyError):
        site.ask(app)


# -- what is answered -----------------------------------------------------------------------------------------------------


def test_it_is_only_read(site: Site, cache: Cache, public: Dashboard) -> None:
    app = site.page(cache, public)
    answer = site.ask(app, method="POST")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    head = site.ask(app, method="HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 1000


def test_nothing_but_its_own_style_and_script_runs(site: Site, cache: Cache, public: Dashboard) -> None:
    answer = site.ask(site.page(cache, public))
    headers = answer.headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        assert policy[name] == f"'sha256-{b64encode(sha256(inside.encode()).digest()).decode()}'"
    assert [policy[n] for n in ("default-src", "frame-ancestors", "base-uri", "form-action")] == ["'none'"] * 4
    assert policy["connect-src"] == "'self'"
    assert (headers["cache-control"], headers["x-frame-options"]) == ("no-store", "DENY")
    assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not re.search(r"""(src|href|style)\s*=|url\(|@import""", answer.text)  # nothing is loaded, nothing forbidden


def test_mounted_with_the_middleware(site: Site, cache: Cache, guarded: Dashboard) -> None:
    app = site.kit(cache, guarded)
    assert site.ask(app, "/else").text == "the application"
    assert site.ask(app, "/-/cachekit/x").text == "the application"
    assert site.ask(app).status_code == 401
    assert "hit rate" in site.ask(app, auth=AUTH).text
    assert site.ask(app, "/-/cachekit.json", auth=AUTH).json()["store"] == "ok"


def use(cache: Cache):
    @cache.cached(ttl="prices", key="price:{product}")
    def price(product):
        if product == 9:
            raise LookupError
        return product

    for product in (1, 2, 1, 1):
        price(product)
    with pytest.raises(LookupError):
        price(9)
    return f"{price.__module__}.{price.__qualname__}"


def test_the_figures(site: Site, clock) -> None:
    cache = Cache(clock=clock, ttl_classes={"prices": "1m"})
    app = site.page(cache, Dashboard("/x", public=True))
    name = use(cache)
    cache.get("absent")
    for url in ("/x?format=json", "/x.json", "/x?a=b&format=json"):
        answer = site.ask(app, url)
        assert answer.headers["content-type"] == "application/json"
        told = answer.json()
        mine = told["by_function"][name]
        assert {n: mine[n] for n in ("hits", "misses", "loads", "load_errors")} == {
            "hits": 2, "misses": 3, "loads": 3, "load_errors": 1,
        }  # fmt: skip
        assert (told["by_class"]["prices"], told["total"]["lookups"]) == (mine, 6)
        assert (mine["hit_rate"], told["entries"], told["evictions"]) == (0.4, 2, 0)
        assert told["hot_keys"][name][0] == {"key": "price:1", "lookups": 3, "error": 0}
        assert told["events"]["load"] == 2
        assert (told["store"], told["channel"], told["pending_invalidations"], told["purges"]) == ("ok", "none", 0, {})
    page = site.ask(app, "/x").text
    for expected in ("40.0&#8239;%", "price:<wbr>1", "prices", ">33.3&#8239;%<"):
        assert expected in page


def test_hot_keys_of_ones_own_and_none(site: Site, cache: Cache, public: Dashboard) -> None:
    hot = HotKeys(cache)
    for dashboard, shown in (
        (Dashboard("/x", public=True, hot_keys=hot), True),
        (Dashboard("/x", public=True, hot_keys=False), False),
        (public, False),  # another follows this cache, and keeps it
    ):
        app = site.page(cache, dashboard)
        cache.get("a")
        assert (site.ask(app, "/x.json").json()["hot_keys"] is not None) == shown


def test_sessions(site: Site, cache: Cache) -> None:
    sessions = Sessions(cache, SessionOptions("a long session secret"))
    app = site.page(cache, Dashboard("/x", public=True, sessions=sessions))
    assert site.ask(app, "/x.json").json()["sessions"]["store"] == "ok"
    assert "Sessions" in site.ask(app, "/x").text


def test_purges(site: Site, clock) -> None:
    with Cache(clock=clock, purgers=[Varnish("http://127.0.0.1:1", secret="sesame", name="edge")]) as cache:
        cache.outbox.stop()
        cache.outbox.options = type(cache.outbox.options)(delay=100, flush=0)
        cache.invalidate("a", "b")
        app = site.page(cache, Dashboard("/x", public=True))
        assert site.ask(app, "/x.json").json()["purges"]["edge"]["pending"] == 2
        assert "2 pending" in site.ask(app, "/x").text

        async def away(_):
            raise StoreError("gone")

        cache.outbox.status = away
        assert site.ask(app, "/x.json").json()["purges"] is None
        assert "unknown while the store is away" in site.ask(app, "/x").text
        cache.outbox.stop()


@pytest.mark.server
def test_a_store_that_is_away(site: Site, own_server, clock, patient) -> None:
    with Cache(f"tiered+{own_server.url}", clock=clock, timeout=0.25) as cache:
        app = site.page(cache, Dashboard("/x", public=True))
        cache.get_or_set("a", lambda: 1)  # the first use opens the channel
        patient(lambda: cache.stats().channel == "live")
        told = site.ask(app, "/x.json").json()
        assert (told["store"], told["channel"], told["channel_kind"]) == ("ok", "live", "tracking")
        own_server.stop()
        for _ in range(5):
            cache.get("b")
        cache.invalidate("t")
        told = site.ask(app, "/x.json").json()
        assert (told["store"], told["pending_invalidations"]) == ("away", 1)
        page = site.ask(app, "/x").text
        assert '<li class="bad"><span>store</span> away</li>' in page
        assert "1 invalidations" in page


def test_passwords_of_the_store_are_not_shown(site: Site, public: Dashboard) -> None:
    with Cache("redis://user:sesame@127.0.0.1:1/0") as cache:
        app = site.page(cache, public)
        assert "sesame" not in site.ask(app).text + site.ask(app, "/x.json").text


def test_a_websocket_and_a_lifespan_are_no_page(cache: Cache, public: Dashboard) -> None:
    app = asgi_edge.DashboardApp(public, cache)
    sent = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "websocket"}, receive, send))
    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1000}]


# -- the page -------------------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Collects the elements of a page, and checks that they are nested."""

    EMPTY = frozenset({"meta", "rect", "wbr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_nothing_that_is_shown_becomes_markup() -> None:
    figures = Figures(hits=3, misses=1, stale=2, loads=2, load_errors=1, load_seconds=0.25)
    shown = Shown(
        cache=EVIL,
        process=1,
        since=1.0,
        stats=Stats(
            figures, {EVIL: figures}, {EVIL: figures}, events={EVIL: 1}, store=EVIL, channel=EVIL, channel_kind=EVIL
        ),
        purges={EVIL: PurgeStatus(pending=1, last_error=EVIL, last_error_age=5.0, dead=1, oldest_age=90.0)},
        hot_keys={EVIL: [HotKey(EVIL, 5)]},
        sessions=None,
    )
    tags = Tags(render(shown, title=EVIL))
    assert "img" not in tags.seen
    assert "".join(tags.words).count(EVIL) == 13
    assert "1 pending for 1.5 min, 1 given up" in "".join(tags.words)


def test_a_cache_that_was_never_used() -> None:
    text = render(Shown("memory://", 1, 0.0, Stats(Figures())))
    Tags(text)
    assert "<strong>-</strong>" in text


def test_the_json_can_be_read_whatever_the_keys(site: Site, cache: Cache, public: Dashboard) -> None:
    app = site.page(cache, public)
    cache.get("\udc80 lone")
    assert json.loads(site.ask(app, "/x.json").content)
