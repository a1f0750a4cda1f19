"""Threads with a visitor each, while their server is killed, frozen and restarted: nobody gets what is another's.

Requests look, change, fail, leave in the middle, or do not look at all, so that reads begun ahead are taken, dropped and
broken in every order. What must hold: no error of ours reaches an application, and a session never holds another's name.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter

import pytest

from cachekit.sessions import Sessions
from cachekit.sessions.wsgi import SessionMiddleware
from tests.sessions.conftest import options

pytestmark = pytest.mark.server

VISITORS = 6
PAGES = ["/look"] * 8 + ["/put", "/large", "/nothing"]


class Ours(Exception):
    """What the application raises itself."""


class Soak:
    def __init__(self, server, seconds: float, seed: int) -> None:
        self.server, self.seed = server, seed
        self.until = time.monotonic() + seconds
        self.sessions = Sessions(server.url, options(timeout=0.1))
        self.app = SessionMiddleware(self.page, self.sessions)
        self.wrong: list[object] = []
        self.seen: Counter[str] = Counter()

    def page(self, environ, start_response):
        session, who, chance = environ["cachekit.session"], environ["who"], environ["chance"]
        path = environ["PATH_INFO"]
        if path != "/nothing" and chance.random() < 0.9:
            found = session.get("who")
            if found not in (who, None):
                self.wrong.append((who, found))
            self.seen["degraded" if session.degraded else "kept"] += 1
            if found is None:
                session["who"] = who
            if path == "/put":
                session["n"] = session.get("n", 0) + 1
            if path == "/large":
                session["large"] = "x" * chance.randrange(200_000)
            if chance.random() < 0.03:
                raise Ours
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"a"] if chance.random() < 0.5 else (part for part in (b"a", b"b"))

    def visitor(self, number: int) -> None:
        chance, cookie = random.Random(f"{self.seed} {number}"), ""
        while time.monotonic() < self.until:
            environ = {"REQUEST_METHOD": "GET", "PATH_INFO": chance.choice(PAGES), "who": number, "chance": chance}
            if cookie:
                environ["HTTP_COOKIE"] = cookie
            head: list[tuple[str, str]] = []

            def start_response(_status, fields, _exc_info=None, head=head):
                head.extend(fields)
                return lambda _data: None

            try:
                body = self.app(environ, start_response)
                for _ in body:
                    if chance.random() < 0.05:
                        break  # the client has left
                if hasattr(body, "close"):
                    body.close()
            except Ours:
                pass
            except Exception as exc:
                self.wrong.append(exc)
            self.seen["requests"] += 1
            for name, value in head:
                if name == "Set-Cookie":
                    cookie = "" if "Max-Age=0" in value else value.partition(";")[0]

    def faults(self) -> None:
        chance = random.Random(f"{self.seed} faults")
        while time.monotonic() < self.until - 1:
            time.sleep(chance.uniform(0.2, 0.8))
            kind = chance.choice(["frozen", "restarted", "cut off"])
            if kind == "frozen":
                os.kill(self.server.process.pid, signal.SIGSTOP)
                time.sleep(chance.uniform(0.05, 0.4))
                os.kill(self.server.process.pid, signal.SIGCONT)
            elif kind == "restarted":
                self.server.stop()
                self.server.start()
            else:
                with self.server.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            self.seen["faults"] += 1

    def run(self) -> None:
        threads = [threading.Thread(target=self.visitor, args=(number,)) for number in range(VISITORS)]
        threads.append(threading.Thread(target=self.faults))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.sessions.close()


def test_nobody_gets_what_is_anothers(own_server) -> None:
    soak = Soak(own_server, 3.0, seed=1)
    soak.run()
    assert soak.wrong == []
    assert soak.seen["kept"] > 0
    assert soak.seen["faults"] > 0


@pytest.mark.soak
def test_nobody_gets_what_is_anothers_for_a_long_time(own_server) -> None:
    soak = Soak(own_server, float(os.environ.get("CACHEKIT_SOAK_SECONDS", "600")), seed=int(time.time()))
    soak.run()
    assert soak.wrong == []
