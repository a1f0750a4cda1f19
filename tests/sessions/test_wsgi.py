"""The WSGI edge of sessions: when it looks for changes, and when it need not look again."""

from __future__ import annotations

import pytest

from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.sessions import Sessions
from cachekit.sessions.wsgi import KEY, SessionMiddleware
from tests.sessions.conftest import options


class _Encodings(MsgpackCodec):
    """Counts what is encoded."""

    __slots__ = ("times",)

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def encode(self, value) -> bytes:
        self.times += 1
        return super().encode(value)


class _Ready:
    """A body that was there before the head went out, as Django's is."""

    def __init__(self, parts) -> None:
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)


@pytest.mark.parametrize("body", [list, tuple, _Ready, lambda parts: _Ready(tuple(parts))])
def test_a_session_is_compared_once_where_nothing_can_change_afterwards(body) -> None:
    codec = _Encodings()
    sessions = Sessions("memory://", options(codec=codec))

    def answer(environ, start_response):
        session = environ[KEY]
        session.setdefault("cart", []).append(len(session))
        start_response("200 OK", [])
        return body([b"one", b"two"])

    app = SessionMiddleware(answer, sessions)
    cookie = ""
    for _ in range(3):
        lines = []
        environ = {"REQUEST_METHOD": "GET", "HTTP_COOKIE": cookie}
        got = b"".join(
            app(environ, lambda status, headers, exc_info=None, lines=lines: lines.extend(headers) or lines.append)
        )
        cookie = dict(lines).get("Set-Cookie", cookie).partition(";")[0]
        assert got == b"onetwo"
    seen = []

    def look(environ, start_response):
        seen.append(list(environ[KEY]["cart"]))
        start_response("200 OK", [])
        return body([b""])

    codec.times = 0
    list(SessionMiddleware(look, sessions)({"REQUEST_METHOD": "GET", "HTTP_COOKIE": cookie}, lambda *_: lines.append))
    assert [len(cart) for cart in seen] == [3]
    assert codec.times == 1, "once, and not again when the body is over"
    sessions.close()


@pytest.mark.parametrize("way", ["generator", "write"])
def test_what_changes_deep_inside_after_the_head_is_kept(way) -> None:
    sessions = Sessions("memory://", options())

    def answer(environ, start_response):
        session = environ[KEY]
        cart = session.setdefault("cart", [])
        write = start_response("200 OK", [])
        if way == "write":
            write(b"one")
            cart.append(1)
            return []

        def parts():
            yield b"one"
            cart.append(1)

        return parts()

    app = SessionMiddleware(answer, sessions)
    cookie = ""
    for times in (1, 2, 3):
        lines, held = [], []

        def start_response(status, headers, exc_info=None, lines=lines):
            lines.extend(headers)
            return lambda data: None

        def look(environ, start_response, held=held):
            held.append(list(environ[KEY]["cart"]))
            start_response("200 OK", [])
            return []

        list(app({"REQUEST_METHOD": "GET", "HTTP_COOKIE": cookie}, start_response))
        cookie = dict(lines).get("Set-Cookie", cookie).partition(";")[0]
        list(SessionMiddleware(look, sessions)({"REQUEST_METHOD": "GET", "HTTP_COOKIE": cookie}, start_response))
        assert held == [[1] * times]
    sessions.close()


@pytest.mark.parametrize("after", ["nothing", "deep", "key"])
def test_a_body_of_the_length_that_was_said_is_the_end_unless_somebody_looks_again(after) -> None:
    codec = _Encodings()
    sessions = Sessions("memory://", options(codec=codec))
    app = SessionMiddleware(_answer(after), sessions)
    cookie, sizes = "", []
    for _ in range(3):
        lines: list[tuple[str, str]] = []
        codec.times = 0
        environ = {"REQUEST_METHOD": "GET", "HTTP_COOKIE": cookie}
        parts = app(environ, lambda status, headers, exc_info=None, lines=lines: lines.extend(headers) or lines.append)
        assert b"".join(parts) == b"one"
        cookie = dict(lines).get("Set-Cookie", cookie).partition(";")[0]
        exchange = sessions.driver.open([cookie])
        sizes.append((len(exchange.session["cart"]), exchange.session.get("times", 0)))
    if after == "nothing":
        assert codec.times == 1, "what was compared with the head is not compared again"
        assert sizes == [(1, 0)] * 3
    elif after == "deep":
        assert sizes == [(2, 0), (3, 0), (4, 0)]
    else:
        assert sizes == [(1, 1), (1, 2), (1, 3)]
    sessions.close()


def _answer(after):
    def answer(environ, start_response):
        session = environ[KEY]
        session.setdefault("cart", ["first"])
        start_response("200 OK", [("content-length", "3")])
        yield b"one"
        if after == "deep":
            session["cart"].append("more")
        elif after == "key":
            session["times"] = session.get("times", 0) + 1

    return answer
