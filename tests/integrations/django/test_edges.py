"""The middlewares through Django's whole handlers, WSGI and ASGI, on every store; compression; fragments."""

from __future__ import annotations

import asyncio
import gzip
from contextlib import contextmanager
from decimal import Decimal

import httpx
import pytest
from cachekit_django import Rule, bridge, conf
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.template import Context, TemplateSyntaxError, engines
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.utils.functional import SimpleLazyObject

import cachekit
from tests.apps.django_shop.urls import calls
from tests.integrations.django.conftest import OURS, THEIRS, project


class Visitor:
    """Django's test client of one world."""

    def __init__(self, world, arun):
        self._arun = arun
        self._client = (
            Client(raise_request_exception=False) if world == "wsgi" else AsyncClient(raise_request_exception=False)
        )
        self.cookies = self._client.cookies
        self.is_async = world == "asgi"

    def __call__(self, path, method="get", **headers):
        if not self.is_async:
            response = getattr(self._client, method)(path, headers=headers)
            body = b"".join(response.streaming_content) if response.streaming else response.content
            return response, body

        async def ask():
            response = await getattr(self._client, method)(path, headers=headers)
            if not response.streaming:
                return response, response.content
            if response.is_async:
                return response, b"".join([part async for part in response.streaming_content])
            return response, b"".join(response.streaming_content)

        return self._arun(ask())


@pytest.fixture(params=["wsgi", "asgi"])
def visit(request, arun):
    return Visitor(request.param, arun)


def status(response):
    return response.headers.get("Cache-Status", "")


def test_a_page_is_stored_and_dropped_by_its_tag(url, visit):
    first, body = visit("/product/42")
    again, same = visit("/product/42")
    assert body == same and len(calls) == 1
    assert "fwd=uri-miss" in status(first) and "stored" in status(first) and "hit" in status(again)
    conf.invalidate("product:42")
    assert "fwd" in status(visit("/product/42")[0]) and len(calls) == 2


def test_async_views_and_classes(url, visit):
    for path in ("/aproduct/1", "/page"):
        visit(path)
        assert "hit" in status(visit(path)[0])


def test_an_unsafe_request_drops_the_page(memory, visit):
    visit("/page")
    visit("/page", "post")
    assert "fwd=uri-miss" in status(visit("/page")[0])


def test_paths_beyond_ascii(memory, arun):
    visit = Visitor("wsgi", arun)  # Django's async client makes paths that no server would send
    visit("/café-☃")
    assert "hit" in status(visit("/caf%C3%A9-%E2%98%83")[0]) and len(calls) == 1


def test_conditions_and_ranges(memory, visit):
    visit("/product/1")
    first, body = visit("/product/1")
    assert visit("/product/1", **{"if-none-match": first["ETag"]})[0].status_code == 304
    part, cut = visit("/product/1", range="bytes=0-3")
    assert (part.status_code, cut) == (206, body[:4]) and len(calls) == 1


def test_a_first_request_with_conditions_does_not_reach_the_view_as_such(memory, visit):
    response, _ = visit("/product/1", **{"if-none-match": '"x"'})
    assert response.status_code == 200 and "hit" in status(visit("/product/1")[0])


def test_what_streams_passes_by(memory, visit):
    response, body = visit("/stream")
    assert body == b"a" * 1000 + b"b" * 1000 and response.streaming
    visit("/stream")
    assert calls == ["stream", "stream"]
    assert visit("/file")[1] == b"file"


def test_async_streams(memory, arun):
    response, body = Visitor("asgi", arun)("/astream", **{"accept-encoding": "gzip"})
    assert gzip.decompress(body) == b"a" * 1000 + b"b" * 1000 and response["Content-Encoding"] == "gzip"


def test_personal_pages_are_not_stored(url, visit, rows):
    assert [visit("/count")[1] for _ in range(3)] == [b"1", b"2", b"3"]
    other = Visitor("asgi" if visit.is_async else "wsgi", visit._arun)
    assert other("/count")[1] == b"1"


@pytest.mark.parametrize("edge", ["wsgi", "asgi"])
@pytest.mark.parametrize("of", ["session", "token"])
def test_a_wrong_order_of_middleware_shares_nothing(memory, arun, edge, of):
    """The session, and the cookie of a form's token, are told further out than the cache looks."""
    with override_settings(MIDDLEWARE=[*THEIRS, OURS[1]]):
        made = [Visitor(edge, arun)(f"/form?of={of}") for _ in range(2)]
        assert len({body for _, body in made}) == len(calls) == 2
        for response, _ in made:
            assert "private" in response["Cache-Control"] and "stored" not in status(response)
        calls.clear()
        for _ in range(2):
            Visitor(edge, arun)("/product/1")
        assert len(calls) == 1, "what has nothing to do with a visitor is kept"


LOCALE = "django.middleware.locale.LocaleMiddleware"


def german(edge, arun):
    visit = Visitor(edge, arun)
    visit.cookies["theme"], visit.cookies["django_language"] = "dark", "de"
    return visit


@pytest.mark.parametrize("edge", ["wsgi", "asgi"])
def test_a_language_that_was_chosen_is_not_what_others_get(url, edge, arun):
    with override_settings(MIDDLEWARE=[*OURS, *THEIRS, LOCALE]):
        visit, chose = Visitor(edge, arun), german(edge, arun)
        for _ in range(2):
            assert chose("/spoken")[1] == b"Ja"
            assert visit("/spoken")[1] == b"Yes"
            assert visit("/spoken", **{"accept-language": "fr"})[1] == b"Oui"
        assert calls == ["spoken"] * 3
        visit("/spoken", method="post")
        assert chose("/spoken")[1] == b"Ja" and visit("/spoken")[1] == b"Yes"
        assert calls == ["spoken"] * 6, "what was changed is asked for again, in every language"


@pytest.mark.parametrize("edge", ["wsgi", "asgi"])
def test_a_chosen_language_in_front_of_django(memory, edge, arun):
    from cachekit_django import get_asgi_application, get_wsgi_application

    with override_settings(MIDDLEWARE=[*THEIRS, "tests.apps.django_shop.urls.Chosen"], LANGUAGE_COOKIE_NAME="tongue"):
        made = get_wsgi_application() if edge == "wsgi" else get_asgi_application()
        asked = [{}, {"cookie": "tongue=de"}] * 2

        async def ask():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(made)) as client:
                return [(await client.get("http://shop/spoken", headers=one)).text for one in asked]

        if edge == "wsgi":
            with httpx.Client(transport=httpx.WSGITransport(made)) as client:
                got = [client.get("http://shop/spoken", headers=one).text for one in asked]
        else:
            got = arun(ask())
        assert got == ["Yes", "Ja"] * 2 and calls == ["spoken"] * 2


@pytest.mark.parametrize("more", [{"USE_I18N": False}, {"MIDDLEWARE": [*OURS, *THEIRS]}])
def test_without_languages_no_cookie_counts(memory, visit, more):
    with override_settings(**{"MIDDLEWARE": [*OURS, *THEIRS, LOCALE], **more}):
        chose = german("asgi" if visit.is_async else "wsgi", visit._arun)
        assert chose("/spoken")[1] == visit("/spoken")[1] and len(calls) == 1


def test_a_chosen_language_is_kept_when_it_is_asked_for_again_behind(memory, arun, patient):
    with override_settings(MIDDLEWARE=[*OURS, *THEIRS, LOCALE]):
        visit, chose = Visitor("wsgi", arun), german("wsgi", arun)
        asked = "/spoken?control=public,+max-age=0,+stale-while-revalidate=60"
        for _ in range(3):
            assert chose(asked)[1] == b"Ja" and visit(asked)[1] == b"Yes"
        patient(lambda: len(calls) > 4)
        assert chose(asked)[1] == b"Ja" and visit(asked)[1] == b"Yes"


def test_errors_pass(memory, visit):
    response, _ = visit("/broken")
    assert response.status_code == 500
    with override_settings(DEBUG=True):
        assert b"ValueError" in visit("/broken")[1]
    assert visit("/nothing")[0].status_code == 404


def test_whom_the_server_knows_gets_their_own():
    """As under RemoteUserMiddleware: the server has asked for the password."""
    rules = [Rule("/big", ttl="1h")]
    with contextmanager(project)("memory://", RULES=rules, OPTIONS={"allow_set_cookie": True}):
        for user in ("ann", "bob", "ann"):
            assert "hit" not in status(Client().get("/big", REMOTE_USER=user))
        assert ["hit" in status(Client().get("/big", REMOTE_USER="")) for _ in range(3)] == [False, True, True]


@pytest.mark.parametrize("edge", ["wsgi", "asgi"])
def test_whom_a_middleware_knows_gets_their_own(edge, arun):
    """By whatever it goes: nothing of it need be in the request where the cache looks."""
    rules = [Rule("/who", ttl="1h", cache_control="max-age=60")]
    theirs = [*THEIRS, "tests.apps.django_shop.urls.members"]
    with (
        contextmanager(project)("memory://", RULES=rules),
        override_settings(MIDDLEWARE=[*OURS, *theirs]),
    ):
        asked = Visitor(edge, arun)

        def visit(who):
            return asked("/who?look", **({"X-Member": who} if who else {}))

        seen = [visit(who) for who in ("ann", "bob", "", "", "", "ann")]
        pages = ["page of ann", "page of bob", *["page of a stranger"] * 3]
        assert [body.decode() for _, body in seen[:5]] == pages
        assert "private" in seen[0][0]["Cache-Control"] and "hit" in status(seen[4][0])


def test_nobody_is_loaded_to_find_out_who_is_asking():
    request = RequestFactory().get("/")
    assert not bridge.knows(request)
    request.user = SimpleLazyObject(lambda: pytest.fail("loaded"))
    assert not bridge.knows(request)
    for user, known in ((AnonymousUser(), False), (User(username="ann"), True)):
        request.user = SimpleLazyObject(lambda user=user: user)
        str(request.user)
        assert bridge.knows(request) is known


@pytest.mark.parametrize("edge", ["wsgi", "asgi"])
def test_rules_of_the_setting(edge, arun):
    with contextmanager(project)(
        "memory://", RULES=[Rule("/big", ttl="1h", tags=["big"])], OPTIONS={"allow_set_cookie": True}
    ):
        visit = Visitor(edge, arun)
        visit("/big")
        again, _ = Visitor(edge, arun)("/big")
        assert "hit" in status(again) and again.cookies["seen"].value == "yes" and again["Cache-Tag"] == "big"


def test_stale_while_revalidate_asks_again_behind(memory, arun, patient):
    visit = Visitor("wsgi", arun)
    visit("/stale")
    assert visit("/stale")[1] == b"1"
    patient(lambda: visit("/stale")[1] != b"1")


def test_stale_while_revalidate_asks_again_behind_async(memory, arun):
    async def main():
        client = AsyncClient()
        assert (await client.get("/stale")).content == b"1"
        assert (await client.get("/stale")).content == b"1"
        while (await client.get("/stale")).content == b"1":
            await asyncio.sleep(0)

    arun(asyncio.wait_for(main(), 15))


def test_without_a_server_pages_are_still_made(own_server, visit, arun):
    with contextmanager(project)(own_server.url):
        visit("/product/1")
        own_server.stop()
        assert visit("/product/1")[0].status_code == 200 and len(calls) == 2


# Compression


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_compression(memory, visit, coding):
    response, body = visit("/big", **{"accept-encoding": coding})
    assert response["Content-Encoding"] == coding and int(response["Content-Length"]) == len(body) < 1000
    assert (
        "Accept-Encoding" in response["Vary"]
        and response["ETag"] == 'W/"v1"'
        and response.cookies["seen"].value == "yes"
    )


def test_compressed_and_cached(memory, visit):
    visit("/stream", **{"accept-encoding": "gzip"})
    _, body = visit("/stream", **{"accept-encoding": "gzip"})
    assert gzip.decompress(body) == b"a" * 1000 + b"b" * 1000
    plain, body = visit("/big", **{"accept-encoding": "identity"})
    assert "Content-Encoding" not in plain and body == b"text " * 1000
    assert visit("/big", **{"accept-encoding": "identity;q=0, x-odd"})[0].status_code == 406


def test_a_hit_is_encoded_once(memory, visit, monkeypatch):
    made = []
    from cachekit.compress import stored

    encode = stored.encode
    monkeypatch.setattr(stored, "encode", lambda *given: made.append(1) or encode(*given))
    answers = [visit("/long", **{"Accept-Encoding": "gzip"}) for _ in range(4)]
    assert all(gzip.decompress(body) == b"text " * 1000 for _, body in answers)
    assert "hit" in status(answers[-1][0])
    assert made == [1], "by the first hit, for the others"
    assert visit("/long", **{"Accept-Encoding": "identity"})[1] == b"text " * 1000


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_a_304_has_the_vary_of_the_200(arun, kind):
    with contextmanager(project)("memory://", OPTIONS={"generate_etag": True}):
        visit = Visitor(kind, arun)
        visit("/long", **{"accept-encoding": "gzip"})
        whole, _ = visit("/long", **{"accept-encoding": "gzip"})
        known, _ = visit("/long", **{"accept-encoding": "gzip", "if-none-match": whole["ETag"]})
        assert (whole.status_code, known.status_code) == (200, 304)
        assert known["Vary"] == whole["Vary"] == "Accept-Encoding"


def test_compression_is_set_by_the_setting(arun):
    with contextmanager(project)("memory://", COMPRESSION={"codings": ["gzip"], "minimum": 10_000}):
        assert "Content-Encoding" not in Visitor("wsgi", arun)("/big", **{"accept-encoding": "gzip"})[0]


def test_a_sync_middleware_between_does_no_harm(memory, arun):
    with override_settings(MIDDLEWARE=[OURS[1], "tests.integrations.django.test_edges.old", *THEIRS]):
        visit = Visitor("asgi", arun)
        assert visit("/product/1")[0]["X-Old"] == "1"
        again, _ = visit("/product/1")
        assert again["X-Old"] == "1" and "hit" in status(again)


def old(get_response):
    def middleware(request):
        response = get_response(request)
        response["X-Old"] = "1"
        return response

    return middleware


# Fragments


def test_fragments_and_their_tags(url, visit):
    assert visit("/fragment")[1].strip() == b"drawn 1" == visit("/fragment")[1].strip()
    assert visit("/fragment?user=2")[1].strip() == b"drawn 2"
    cache.invalidate_tags("menu")
    assert visit("/fragment")[1].strip() == b"drawn 3"
    cache.invalidate_tags("product:42")  # a tag that was used inside
    assert visit("/fragment")[1].strip() == b"drawn 4"


def test_a_fragment_brings_its_tags_to_whoever_uses_it(memory):
    for _ in range(2):  # drawn, then read
        with cachekit.tags.collecting() as tags:
            render('{% load cachekit shop %}{% cache 60 part tags="menu, other" %}{% drawn 7 %}{% endcache %}')
        assert set(tags) == {"menu", "other", "product:7"}


def render(text, **context):
    return engines["django"].from_string(text).template.render(Context(context))


@pytest.mark.parametrize("load", ["cache", "cachekit"])
@pytest.mark.parametrize("using", ["default", "plain"])
def test_lifetimes_that_django_takes(memory, load, using):
    plain = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={**settings.CACHES, "plain": plain}):
        for number, (lifetime, kept) in enumerate({
            "'60'": True, "' 60 '": True, "60": True, "sixty": True, "True": True, "'-5'": False, "-1": False, "0": False,
            "'0'": False, "-0.5": False, "False": False,
        }.items()):  # fmt: skip
            text = f"{{% load {load} %}}{{% cache {lifetime} n{number} using='{using}' %}}{{{{ a }}}}{{% endcache %}}"
            shown = [render(text, a=a, sixty=Decimal("60.5")) for a in (1, 2)]
            assert shown == ["1", "1" if kept else "2"], lifetime


def test_the_tag_is_djangos_own_with_more(memory):
    assert render("{% load cachekit %}{% cache None x %}<b>{{ a }}</b>{% endcache %}", a=1) == "<b>1</b>"
    assert render("{% load cachekit %}{% cache None x %}<b>{{ a }}</b>{% endcache %}", a=2) == "<b>1</b>"
    assert (
        render("{% load cachekit %}{% cache t x a tags=b using='default' %}{{ a }}{% endcache %}", a=3, t=5, b=["c"])
        == "3"
    )
    from django.core.cache.utils import make_template_fragment_key

    assert cache.get(make_template_fragment_key("x", [3])) == "3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% cache 5 %}{% endcache %}", "needs a lifetime and a name"),
        ("{% cache 5 x tgas=1 %}{% endcache %}", "no option tgas"),
        ("{% cache 'soon' x %}{% endcache %}", "is not a duration"),
        ("{% cache 5 x using='none' %}{% endcache %}", "Invalid cache name"),
    ],
)
def test_wrong_tags(memory, text, message):
    with pytest.raises(TemplateSyntaxError, match=message):
        render("{% load cachekit %}" + text)


def test_tags_need_the_backend():
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        assert render("{% load cachekit %}{% cache 5 x %}a{% endcache %}") == "a"
        with pytest.raises(TemplateSyntaxError, match="CacheBackend"):
            render("{% load cachekit %}{% cache 5 x tags='a' %}a{% endcache %}")


# Degradation


def test_protected_paths_are_refused_while_the_store_is_away(own_server, arun):
    names = ["cachekit_django.middleware.DegradationMiddleware", OURS[1], *THEIRS]
    for world in ("wsgi", "asgi"):
        with contextmanager(project)(
            own_server.url, DEGRADATION={"protected": ["/page"], "retry_after": 7, "max_age": 0}
        ):
            with override_settings(MIDDLEWARE=names):
                visit = Visitor(world, arun)
                assert visit("/page")[0].status_code == 200 and visit("/-/health")[0].status_code == 200
                own_server.stop()
                cache.get("a")
                refused, _ = visit("/page")
                assert (refused.status_code, refused["Retry-After"]) == (503, "7")
                assert visit("/stale")[0].status_code == 200 and visit("/stream")[1].startswith(b"aaa")
        own_server.start()
