"""``cachekit proxy``: a real process in front of a scripted server."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import httpx
import pytest

from cachekit.config import RunConfig
from cachekit.errors import ConfigError
from cachekit.http.message import check_origin
from cachekit.proxy import ReverseProxy
from cachekit.serve import Readable
from tests.http.through import Origin, Say
from tests.integrations import test_run
from tests.ports import free_port

FRESH = ("Cache-Control", "max-age=60")


@pytest.fixture
def origin():
    made = Origin()
    yield made
    made.close()


@pytest.fixture
def running(monkeypatch, tmp_path):
    monkeypatch.setattr(test_run, "command", lambda *args: [test_run.sys.executable, "-m", "cachekit", "proxy", *args])
    return lambda *args, **more: test_run.running(tmp_path, *args, **more)


def to(origin):
    return f"http://127.0.0.1:{origin.port}"


def test_the_cache_in_front_of_another_server(running, origin):
    with running("--to", to(origin)) as client:
        origin.says(
            Say([FRESH, ("X-Odd", "a"), ("X-Odd", "b"), ("Connection", "X-Hop"), ("X-Hop", "1")], body=b"hello")
        )
        first, second = client.get("/a?b=c%20d"), client.get("/a?b=c%20d")
        assert (first.content, second.content, len(origin.heard)) == (b"hello", b"hello", 1)
        assert "hit" in second.headers["cache-status"]
        assert second.headers.get_list("x-odd") == ["a", "b"]
        assert len(second.headers.get_list("date")) == 1
        assert "x-hop" not in first.headers
        heard = origin.heard[0]
        assert heard.target == "/a?b=c%20d"
        assert heard.headers["x-forwarded-for"] == "127.0.0.1"
        assert heard.headers["x-forwarded-proto"] == "http"
        assert heard.headers["x-forwarded-host"] == heard.headers["host"] == client.base_url.netloc.decode()
        assert heard.headers["via"] == "1.1 cachekit"
        assert "(PROXY)" not in client.log.read_text()
        assert to(origin) in client.log.read_text()
        origin.says(Say(status=201))
        posted = client.post("/a?b=c%20d", content=b"x" * 100_000)
        assert (posted.status_code, origin.heard[0].body) == (201, b"x" * 100_000)
        assert "hit" not in client.get("/a?b=c%20d").headers["cache-status"]


def test_the_date_of_the_server_is_the_only_one(running, origin):
    date = "Tue, 15 Nov 1994 08:12:31 GMT"
    with running("--to", to(origin)) as client:
        for method in ("GET", "POST"):
            origin.says(Say([("Date", date), ("Cache-Control", "no-store")]))
            got = client.request(method, "/x")
            assert got.headers.get_list("date") == [date]
            assert all(name == name.lower() for name, _ in got.headers.raw if name != b"Transfer-Encoding")


def test_rules_hold(running, origin):
    with running("--to", to(origin)) as client:
        origin.says(Say())
        assert client.get("/kept/a").headers["cache-tag"] == "page:a"
        assert "hit" in client.get("/kept/a").headers["cache-status"]


def test_a_server_that_is_gone_and_one_that_is_slow(running, origin):
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, running("--to", f"http://127.0.0.1:{silent.getsockname()[1]}", "--upstream-timeout", "0.1") as client:
        got = client.get("/x")
        assert (got.status_code, got.headers["cache-control"]) == (504, "no-store")
    with running("--to", f"http://127.0.0.1:{free_port()}") as client:
        assert client.get("/x").status_code == 502
        assert client.head("/x").content == b""


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_is_none_is_an_error_of_the_server(running, origin, status):
    with running("--to", to(origin)) as client:
        origin.says(Say([FRESH, ("Connection", "close")], status=status))
        for _ in range(2):
            got = client.get("/x")
            assert (got.status_code, got.headers["cache-control"]) == (502, "no-store")
        assert len(origin.heard) == 2
        origin.says(Say([FRESH]))
        assert client.get("/x").content == b"body"


def test_a_websocket_is_refused_in_words(running, origin):
    with running("--to", to(origin)) as client:
        handshake = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
                     "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
        assert client.get("/x", headers=handshake).status_code in (403, 501, 200)


@pytest.mark.parametrize(
    "origin_",
    [
        "",
        "127.0.0.1:3000",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://u:p@a",
        "http://a?b",
        "http://a:x",
        "http://a:0",
        "http://a:99999",
        "http://[::1",
    ],
)
def test_what_is_no_origin_is_refused(origin_):
    with pytest.raises(ConfigError, match="to="):
        check_origin(origin_)
    if origin_:
        with pytest.raises(ConfigError, match="to="):
            RunConfig(to=origin_)


def test_without_an_origin_it_says_what_to_write(capsys, monkeypatch, tmp_path):
    from cachekit.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["proxy"]) == 2
    assert "--to" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="upstream_timeout"):
        RunConfig(upstream_timeout=0)


def test_a_response_that_is_broken_off_is_one_line_in_the_log(running, origin):
    with running("--to", to(origin)) as client:  # which fails on a traceback in the log
        origin.says(Say([FRESH], body=b"x" * 3000, cut=1000))
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/cut")
    said = [line for line in client.log.read_text().splitlines() if "broke off" in line]
    assert len(said) == 1
    assert "'GET /cut': peer closed connection without sending complete message body" in said[0]


@pytest.mark.parametrize(
    ("message", "said"), [("ASGI callable returned without completing handshake.", False), ("something else", True)]
)
def test_a_websocket_that_was_refused_is_no_error(message, said):
    """Some of the libraries that the server may use say so where the refusal is an answer of HTTP."""
    record = logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, message, (), None)
    assert Readable().filter(record) is said


# In process


class Answering(httpx.AsyncBaseTransport):
    """A server that answers piece by piece, when it is told to."""

    def __init__(self):
        self.request = None
        self.gate = asyncio.Event()
        self.closed = asyncio.Event()
        self.body = b""

    async def handle_async_request(self, request):
        self.request = request
        async for chunk in request.stream:
            self.body += chunk
        return httpx.Response(200, headers=[("x", "1")], stream=_Pieces(self))


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, of):
        self.of = of

    async def __aiter__(self):
        yield b"first"
        await self.of.gate.wait()
        yield b"last"

    async def aclose(self):
        self.of.closed.set()


def scope_of(**more):
    return {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": [], **more}


def messages(*given):
    queue = list(given)

    async def receive():
        if queue:
            return queue.pop(0)
        return await asyncio.get_running_loop().create_future()

    return receive


def run(job):
    asyncio.run(asyncio.wait_for(job, 20))


def test_pieces_are_sent_on_as_they_come():
    async def job():
        transport = Answering()
        sent = asyncio.Queue()
        asked = messages({"type": "http.request", "body": b"", "more_body": False})
        task = asyncio.create_task(ReverseProxy("http://a", transport=transport)(scope_of(), asked, sent.put))
        assert (await sent.get())["status"] == 200
        assert (await sent.get())["body"] == b"first"
        assert sent.empty()
        transport.gate.set()
        await task
        assert [(await sent.get())["body"] for _ in range(2)] == [b"last", b""]
        assert transport.closed.is_set()

    run(job())


def test_a_client_that_leaves_ends_the_request():
    async def job():
        transport = Answering()
        asked = messages({"type": "http.request"}, {"type": "http.disconnect"})

        async def send(message):
            pass

        await ReverseProxy("http://a", transport=transport)(scope_of(), asked, send)
        assert transport.closed.is_set()

    run(job())


def test_a_body_is_streamed_and_what_a_client_claims_is_not_passed_on():
    async def job():
        transport = Answering()
        transport.gate.set()
        asked = messages(
            {"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.request", "body": b"b"}
        )
        headers = [(b"x-forwarded-for", b"6.6.6.6"), (b"forwarded", b"for=6.6.6.6"), (b"transfer-encoding", b"chunked"),
                   (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"cookie", b"a=1"), (b"host", b"shop")]  # fmt: skip

        async def send(message):
            pass

        scope = scope_of(method="POST", headers=headers, client=("9.9.9.9", 1), scheme="https")
        await ReverseProxy("http://a", transport=transport)(scope, asked, send)
        sent = transport.request.headers
        assert transport.body == b"ab"
        assert (sent["x-forwarded-for"], sent["x-forwarded-proto"], sent["host"]) == ("9.9.9.9", "https", "shop")
        assert not {"forwarded", "x-hop", "connection"} & set(sent)
        assert sent["cookie"] == "a=1"

    run(job())


def test_a_claim_spelt_with_underscores_is_not_passed_on(origin):
    async def job():
        proxy = ReverseProxy(to(origin))

        async def send(message):
            pass

        claims = [b"x_forwarded_for", b"X_Forwarded-Proto", b"X-Forwarded-Prefix", b"X-Real-IP", b"x_forwarded_ssl"]
        headers = [*((name, b"6.6.6.6") for name in claims), (b"x_other", b"1")]
        await proxy(scope_of(headers=headers), messages({"type": "http.request"}), send)
        await proxy.aclose()
        heard = origin.heard[0].headers
        assert "x_other" in heard
        assert b"6.6.6.6" not in {value for _, value in heard.raw}

    run(job())


def send_raw(client, data):
    """Return all that is answered to the bytes *data*, on a connection of their own."""
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_field_that_only_the_cache_saw_poisons_nothing(running, origin):
    """What Connection lists is taken off on the way to the server, as it must be; the cache has chosen the key by it."""
    with running("--to", to(origin)) as client:
        host = client.base_url.netloc
        targeted = ("Surrogate-Control", "max-age=60")
        origin.says(Say([FRESH, targeted, ("Vary", "Accept-Language")], body=b"of another site"))
        for listed in (b"Host", b"Accept-Language"):
            said = b"GET /a HTTP/1.1\r\nHost: %s\r\nAccept-Language: fr\r\nConnection: close, %s\r\n\r\n"
            assert b"of another site" in send_raw(client, said % (host, listed))
        origin.says(Say([FRESH, ("Vary", "Accept-Language")], body=b"the page"))
        assert client.get("/a", headers={"accept-language": "fr"}).content == b"the page"
        assert "hit" in client.get("/a", headers={"accept-language": "fr"}).headers["cache-status"]


class Tired:
    """A server that answers once on each connection, and hangs up in silence on what comes then."""

    def __init__(self):
        self.heard = []

    async def __call__(self, reader, writer):
        for word in (b"answered", b""):
            self.heard.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
            if not word:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + word)
            await writer.drain()
        writer.close()


@pytest.mark.parametrize(
    ("method", "statuses", "heard"), [("GET", [200, 200], 3), ("OPTIONS", [200, 200], 3), ("POST", [200, 502], 2)]
)
def test_a_connection_that_was_closed_while_idle_fails_nobody_who_may_ask_again(method, statuses, heard):
    async def job():
        tired, sent = Tired(), []
        server = await asyncio.start_server(tired, "127.0.0.1", 0)

        async def send(message):
            sent.append(message)

        async with server:
            proxy = ReverseProxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            for _ in statuses:
                await proxy(scope_of(method=method), messages({"type": "http.request"}), send)
            await proxy.aclose()
        assert [one["status"] for one in sent if "status" in one] == statuses
        assert tired.heard == [method.encode()] * heard
        assert statuses[-1] == 200 or b"no valid answer" in sent[-1]["body"]

    run(job())


def test_a_server_that_hangs_up_on_a_new_connection_is_not_asked_again(origin):
    async def job():
        origin.says(Say(hangs_up=True))
        proxy, sent = ReverseProxy(to(origin)), []

        async def send(message):
            sent.append(message)

        await proxy(scope_of(), messages({"type": "http.request"}), send)
        await proxy.aclose()
        assert (sent[0]["status"], len(origin.heard)) == (502, 1)

    run(job())


@pytest.mark.parametrize(
    ("method", "said", "status", "heard"),
    [
        ("CONNECT", None, 501, None),
        ("OPTIONS", b"0", 204, None),
        ("TRACE", b"0", 501, None),
        ("OPTIONS", b"2", 200, "1"),
        ("GET", b"0", 200, "0"),
        ("OPTIONS", b"many", 200, "many"),
        ("OPTIONS", b"9" * 5000, 200, "9" * 5000),
    ],
)
def test_how_far_a_request_may_go(origin, method, said, status, heard):
    async def job():
        proxy, sent = ReverseProxy(to(origin)), []

        async def send(message):
            sent.append(message)

        headers = [] if said is None else [(b"Max-Forwards", said)]
        await proxy(scope_of(method=method, headers=headers), messages({"type": "http.request"}), send)
        await proxy.aclose()
        assert sent[0]["status"] == status
        assert [one.headers["max-forwards"] for one in origin.heard] == ([] if heard is None else [heard])

    run(job())


def test_a_body_that_states_two_lengths_has_the_one_of_its_coding():
    async def job():
        transport = Answering()
        transport.gate.set()

        async def send(message):
            pass

        scope = scope_of(method="POST", headers=[(b"content-length", b"3"), (b"transfer-encoding", b"chunked")])
        asked = messages({"type": "http.request", "body": b"hello"})
        await ReverseProxy("http://a", transport=transport)(scope, asked, send)
        assert transport.body == b"hello"
        assert "content-length" not in transport.request.headers
        assert transport.request.headers["transfer-encoding"] == "chunked"

    run(job())


def test_a_response_that_states_two_lengths_has_the_one_of_its_coding():
    async def job():
        class Twice(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request):
                headers = [("Content-Length", "3"), ("Transfer-Encoding", "chunked")]
                return httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"hello"))

        sent = []

        async def send(message):
            sent.append(message)

        await ReverseProxy("http://a", transport=Twice())(scope_of(), messages({"type": "http.request"}), send)
        assert [name for name, _ in sent[0]["headers"]] == [b"date"]
        assert b"".join(one.get("body", b"") for one in sent) == b"hello"

    run(job())


def test_cookies_of_one_client_do_not_reach_another(origin):
    async def job():
        proxy = ReverseProxy(to(origin))
        origin.says(Say([("Set-Cookie", "session=alice; Path=/")]))

        async def send(message):
            pass

        for _ in range(2):
            await proxy(scope_of(), messages({"type": "http.request"}), send)
        assert "cookie" not in origin.heard[1].headers
        await proxy.aclose()

    run(job())


@pytest.mark.parametrize("extension", [True, False])
def test_websockets(extension):
    async def job():
        sent = []

        async def send(message):
            sent.append(message)

        extensions = {"websocket.http.response": {}} if extension else {}
        await ReverseProxy("http://a")(
            {"type": "websocket", "extensions": extensions}, messages({"type": "websocket.connect"}), send
        )
        assert (sent[0].get("status") == 501) is extension
        assert "websockets" in str(sent)

    run(job())


def test_nothing_is_left_running(origin):
    before = threading.active_count()

    async def job():
        proxy = ReverseProxy(to(origin))
        inbox, outbox = asyncio.Queue(), asyncio.Queue()
        task = asyncio.create_task(proxy({"type": "lifespan"}, inbox.get, outbox.put))
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        await inbox.put({"type": "lifespan.shutdown"})
        await task

    run(job())
    assert threading.active_count() == before
