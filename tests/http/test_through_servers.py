"""The tables of the other files once more, through real servers: client, uvicorn, the cache, a reverse proxy, the origin.

What a framework or a test double would tidy up arrives here as it was sent.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.http import test_section_3_storing as storing
from tests.http import test_section_4_1_vary as vary
from tests.http import test_section_4_2_freshness as freshness
from tests.http import test_section_4_3_validation as validation
from tests.http import test_section_4_4_invalidation as invalidation
from tests.http import test_section_4_serving as serving
from tests.http.through import Say, Through

CC = "Cache-Control"
FRESH = (CC, "max-age=60")


@pytest.fixture(scope="module")
def servers() -> Iterator[Through]:
    made = Through()
    yield made
    made.close()


class Way:
    """One edge, from the client's side."""

    def __init__(self, through: Through, edge: str) -> None:
        self.through = through
        self.edge = edge
        self.origin = through.origin
        self.clock = through.clock
        through.reset()
        through.clock.now = 1_800_000_000.0

    def setup(self, **options: object) -> Way:
        self.through.reset(**options)
        return self

    def says(self, *script: Say | list[tuple[str, str]]) -> None:
        self.origin.says(*(one if isinstance(one, Say) else Say(one) for one in script))

    def ask(self, method: str = "GET", target: str = "/x", headers=None, body: bytes | None = None) -> httpx.Response:
        # Without the fields that the client library adds by itself.
        client = self.through.clients[self.edge]
        pairs = headers.items() if isinstance(headers, dict) else headers or []
        asked = [(name, value.strip()) for name, value in pairs]  # the library refuses white space at the ends
        request = httpx.Request(method, client.base_url.join(target), headers=asked, content=body)
        return client.send(request)

    @property
    def forwards(self) -> int:
        return len(self.origin.heard)


@pytest.fixture(params=["asgi", "wsgi"])
def way(request: pytest.FixtureRequest, servers: Through) -> Way:
    return Way(servers, request.param)


def hit(response: httpx.Response) -> bool:
    return "; hit" in response.headers.get("cache-status", "")


def sendable(rows: list, at: int) -> list:
    """Return the *rows* whose fields may be sent over HTTP/1.1 at all."""
    return [row for row in rows if all(ord(char) < 128 for _, value in row[at] for char in value)]


ROWS = sendable(freshness.ROWS, 1)


@pytest.mark.parametrize(("headers", "after", "reused"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_freshness(way, headers, after, reused):
    way.says(headers)
    assert way.ask().status_code == 200
    way.clock.advance(after)
    got = way.ask()
    assert (way.forwards == 1, hit(got), got.content) == (reused, reused, b"body")


@pytest.mark.parametrize(
    ("status", "headers", "after", "reused"), [r[1:] for r in freshness.GUESSES], ids=[r[0] for r in freshness.GUESSES]
)
def test_heuristic_freshness(way, status, headers, after, reused):
    way.says(Say(headers, status))
    way.ask()
    way.clock.advance(after)
    assert hit(way.ask()) is reused


@pytest.mark.parametrize(
    ("headers", "after", "age"), [r[1:] for r in freshness.AGES], ids=[r[0] for r in freshness.AGES]
)
def test_age(way, headers, after, age):
    way.says([(CC, "max-age=600"), *headers])
    way.ask()
    way.clock.advance(after)
    assert way.ask().headers.get_list("age") == [age]


STORING = [row for row in storing.RESPONSES if row[1] != 206]


@pytest.mark.parametrize(("status", "headers", "stored"), [r[1:] for r in STORING], ids=[r[0] for r in STORING])
def test_storing(way, status, headers, stored):
    way.says(Say(headers, status))
    assert way.ask().status_code == status
    got = way.ask()
    assert (got.status_code, hit(got)) == (status, stored)


@pytest.mark.parametrize(("names", "one", "two", "same"), [r[1:] for r in vary.ROWS], ids=[r[0] for r in vary.ROWS])
def test_variants(way, names, one, two, same):
    way.says([FRESH, ("Vary", names)])
    way.ask(headers=one)
    assert hit(way.ask(headers=two)) is same


@pytest.mark.parametrize(
    ("response", "after", "request_", "status", "forwards"),
    [r[1:] for r in serving.REQUESTS], ids=[r[0] for r in serving.REQUESTS],
)  # fmt: skip
def test_request_directives(way, response, after, request_, status, forwards):
    way.says([(CC, response), ("ETag", '"a"')])
    way.ask()
    way.clock.advance(after)
    got = way.ask(headers={"cache-control": request_})
    assert (got.status_code, way.forwards) == (status, forwards)


CONDITIONS = validation.CONDITIONS


@pytest.mark.parametrize(
    ("validators", "request_", "status"), [r[1:] for r in CONDITIONS], ids=[r[0] for r in CONDITIONS]
)
def test_conditions(way, validators, request_, status):
    way.setup(generate_etag=False).says([FRESH, *validators])
    way.ask()
    if "date" not in {name.lower() for name, _ in validators} and request_ == {"if-modified-since": "yesterday"}:
        way.clock.advance(1)
    got = way.ask(headers=request_)
    assert (got.status_code, way.forwards) == (status, 1)
    assert got.content == (b"" if status == 304 else b"body")


@pytest.mark.parametrize(
    ("fields", "name", "after"), [r[1:] for r in validation.UPDATES], ids=[r[0] for r in validation.UPDATES]
)
def test_updates_by_304(way, fields, name, after):
    way.says(Say(validation.STORED), Say(fields, 304, b""))
    way.ask()
    way.clock.advance(60)
    for _ in range(2):
        assert way.ask().headers.get_list(name) == after
    assert way.forwards == 2


@pytest.mark.parametrize("edge_method", ["POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "PROPPATCH"])
@pytest.mark.parametrize("where", ["", "Location", "Content-Location"])
@pytest.mark.parametrize("status", [200, 204, 302, 404, 500])
def test_invalidation(way, edge_method, where, status):
    target = "/other" if where else "/x"
    way.says([FRESH])
    way.ask(target=target)
    way.says(Say([(where, target)] if where else [], status, b""))
    assert way.ask(edge_method, body=b"abc").status_code == status
    assert way.origin.heard[-1].body == b"abc"
    way.says([FRESH])
    assert hit(way.ask(target=target)) is (status >= 400)


ROWS_4_4 = [row for row in invalidation.ROWS if "absolute" not in row[0] and "org" not in str(row[3])]


@pytest.mark.parametrize(
    ("method", "status", "headers", "own", "other"), [r[1:] for r in ROWS_4_4], ids=[r[0] for r in ROWS_4_4]
)
def test_references(way, method, status, headers, own, other):
    way.says([FRESH])
    for target in ("/x", "/y"):
        way.ask(target=target)
    way.says(Say(headers, status, b""))
    way.ask(method, body=b"d")
    way.says([FRESH])
    assert [hit(way.ask(target=target)) for target in ("/x", "/y")] == [not own, not other]


def test_fields_of_the_connection_are_not_stored(way):
    hop = [("Keep-Alive", "x"), ("Proxy-Connection", "y"), ("Upgrade", "h2c"), ("Proxy-Authenticate", "x"), ("TE", "x")]
    way.says([FRESH, ("Connection", "a, B"), ("a", "1"), ("b", "2"), ("c", "3"), *hop])
    way.ask()
    got = way.ask()
    assert hit(got)
    assert got.headers["c"] == "3"
    gone = {"connection", "a", "b", "keep-alive", "proxy-connection", "upgrade", "proxy-authenticate", "te"}
    assert not gone & set(got.headers)


BROKEN = [
    # name, what the origin does, is the client told
    ("hangs up", Say(hangs_up=True)),
    ("hangs up in the body", Say([FRESH], body=b"0123456789", cut=4)),
    ("chunks that end early", Say([FRESH, ("Transfer-Encoding", "chunked")], body=b"4\r\nbody\r\n", cut=9)),
    ("chunks that are none", Say([FRESH, ("Transfer-Encoding", "chunked")], body=b"zz\r\nbody\r\n0\r\n\r\n", cut=99)),
]


@pytest.mark.parametrize("say", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_what_breaks_off_is_not_stored(way, say):
    way.says(say)
    try:
        assert way.ask().status_code in (200, 500, 502)
    except httpx.RemoteProtocolError:
        pass
    way.says(Say([FRESH], body=b"whole"))
    got = way.ask()
    assert (got.content, hit(got)) == (b"whole", False)
    assert hit(way.ask())


def test_chunks_and_closed_connections_are_whole(way):
    for say in (
        Say([FRESH, ("Transfer-Encoding", "chunked")], body=b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"),
        Say([FRESH, ("Connection", "close")], raw=True),
    ):
        way.setup().says(say)
        assert way.ask().content == b"body"
        got = way.ask()
        assert (hit(got), got.content, got.headers["content-length"]) == (True, b"body", "4")


def test_interim_responses_are_not_taken_for_the_response(way):
    early = b"HTTP/1.1 103 Early Hints\r\nCache-Control: max-age=3600\r\nLink: </a>\r\n\r\n"
    way.says(Say([(CC, "no-store")], interim=early))
    assert way.ask().headers[CC] == "no-store"
    assert not hit(way.ask())


@pytest.mark.parametrize("more", ["", "must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=2"])
def test_stale_where_the_origin_is_gone(way, more):
    control = f"max-age=2, stale-if-error=60{', ' if more else ''}{more}"
    way.says(Say([(CC, control), ("ETag", '"a"')]), Say(hangs_up=True))
    way.ask()
    way.clock.advance(3)
    got = way.ask()
    served = more in ("", "s-maxage=2")  # s-maxage forbids what the response itself does not allow
    assert (got.status_code == 200) is served
    if served:
        assert (got.content, got.headers["age"]) == (b"body", "3")


def test_stale_while_revalidate(way):
    way.says(
        Say([(CC, "max-age=1, stale-while-revalidate=60"), ("ETag", '"a"')]), Say([(CC, "max-age=60")], 200, b"new")
    )
    way.ask()
    way.clock.advance(2)
    assert way.ask().content == b"body"
    for _ in range(1000):
        if (got := way.ask()).content == b"new":
            break
    assert hit(got)
    assert way.forwards == 2
    assert way.origin.heard[1].headers["if-none-match"] == '"a"'


def test_head(way):
    way.says([FRESH])
    way.ask()
    got = way.ask("HEAD")
    assert (hit(got), got.headers["content-length"], got.content) == (True, "4", b"")


def test_ranges(way):
    way.says(Say([FRESH], body=b"0123456789A"))
    way.ask()
    for asked, part, where in [
        ("bytes=0-1", b"01", "bytes 0-1/11"),
        ("bytes=1-", b"123456789A", "bytes 1-10/11"),
        ("bytes=-1", b"A", "bytes 10-10/11"),
    ]:
        got = way.ask(headers={"range": asked})
        assert (got.status_code, got.content, got.headers["content-range"], hit(got)) == (206, part, where, True)
    assert way.ask(headers={"range": "bytes=99-"}).status_code == 416


@pytest.mark.parametrize(
    "status", [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 418, 499, 500, 502, 503, 504, 599]
)
def test_any_final_status_with_explicit_freshness(way, status):
    way.says(Say([FRESH, ("Location", "/y")], status, b"" if status == 204 else b"body"))
    assert way.ask().status_code == status
    got = way.ask()
    assert (got.status_code, hit(got)) == (status, True)
    way.clock.advance(60)
    assert not hit(way.ask())


def test_targets_that_no_library_would_send(way):
    way.says([FRESH])
    for target in ("/a%2Fb", "/a//b", "/a/../b", "/?", "/%", "/a;b?c=d&&e"):
        assert way.ask(target=target).status_code == 200


def test_two_lines_of_a_field_stay_two(way):
    way.says([FRESH, ("Link", "</a>"), ("Link", "</b>")])
    for _ in range(2):
        assert way.ask().headers.get_list("link") == ["</a>", "</b>"]
