"""Sessions on clusters and behind Sentinel, while a primary is lost: nobody is logged in again, few notice."""

from __future__ import annotations

import time

import pytest

from cachekit.sessions import Sessions
from tests.sessions.conftest import options, put

pytestmark = pytest.mark.server

VISITORS = 24


def test_a_failover(own_deployment, edge_kind) -> None:
    """What was kept is there again, changes made meanwhile are delivered, and who was logged out stays out.

    The replica never hears of the last change, nor of the last logout: the one is what a failover may lose, the other must
    not come back for a process that has seen it.
    """
    deployment, started, offset = own_deployment, time.time(), [0.0]
    sessions = Sessions(
        deployment.url, options(timeout=0.5, counters=["hits"]), clock=lambda: started + offset[0]
    )  # the clock moves only to let the breaker try again
    edge = edge_kind(sessions)
    browsers = [edge.browser() for _ in range(VISITORS)]
    for number, browser in enumerate(browsers):
        browser.ask(put("number", number))
        browser.ask(lambda session: session.update(hits=1))
    ann = edge.browser()
    ann.ask(lambda session: session.bind("ann"))
    key = ann.look(lambda session: session.handle)
    shard, _, digest = key.partition(".")
    lost = deployment.owner(f"cachekit:s:{{{shard}}}:{digest}")
    told = ann.copy()
    deployment.lose(lost, lambda: None)

    for number, browser in enumerate(browsers):  # every request is answered
        got = browser.ask(lambda session: session.update(hits=session.get("hits", 0) + 1, seen=True))
        assert got.status == 200
    assert ann.ask(lambda session: session.clear()).status == 200
    assert told.look(lambda session: session.user) == ""

    deadline = time.monotonic() + 30
    while True:
        offset[0] += 11  # more than the longest pause of a breaker
        waits = [browser.look(lambda session: session.degraded) for browser in browsers]
        if not any(waits) and not sessions.deliver() and not sessions.stats().waiting:
            break
        assert time.monotonic() < deadline, "it never came back"
    assert lost not in deployment.primaries()
    assert told.look(lambda session: session.user) == "", "a logout is delivered before the session is read"
    assert sessions.of("ann") == []
    for number, browser in enumerate(browsers):
        found = browser.look()
        assert (found["number"], found["hits"], found["seen"]) == (number, 2, True)
    edge.close()
    sessions.close()
