"""Proof by trial: caches in several processes over one server, and everything between them fails again and again.

No read that began after an invalidation was complete may return what was loaded before it. An invalidation is complete
when ``invalidate`` has returned and nothing is pending. For stores without a first level, and in the process that
invalidated, that holds without exception. A first level in another process hears of it by the channel: what it serves
before that is counted as late, and as stale when it is older than the two heartbeats after which a silent channel counts
as lost. ``isolated_ttl`` is 0: the exception that it makes has tests of its own. One other is counted apart, as shared:
while the server does not answer a process, its callers share the loads that are under way, and cannot know what others
invalidated during such a load.

``make test`` runs it for a few seconds, ``make soak`` for ``CACHEKIT_SOAK_SECONDS`` (600).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import soaking
from tests.proxies import Proxy
from tests.soaking import SIZE, Ledger

pytestmark = pytest.mark.server

ROOT = Path(__file__).parent.parent.parent


class Crowd:
    """Processes with a proxy each between them and the server."""

    def __init__(self, server, path: Path, seed: int) -> None:
        self.server = server
        self.path = path
        self.random = random.Random(seed)
        self.proxies = [Proxy(("127.0.0.1", server.port)) for _ in range(4)]
        self.workers: list[subprocess.Popen[str]] = []
        self.faults: dict[str, int] = {}
        for number in range(4):
            self.workers.append(self._start(number))
        for worker in self.workers:
            assert worker.stdout.readline() == "ready\n"

    def _start(self, number: int) -> subprocess.Popen[str]:
        tier = "" if number == 3 else "tiered+"
        url = f"{tier}redis://127.0.0.1:{self.proxies[number].port}/0"
        return subprocess.Popen(
            [sys.executable, str(Path(soaking.__file__)), str(number), url, str(self.path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        )  # fmt: skip

    def fault(self) -> None:
        """Let something fail, for a moment."""
        name = self.random.choice(
            ["cut", "delay", "freeze", "stop", "kill", "freeze the server", "shut out", "cut all"]
        )
        number = self.random.randrange(4)
        proxy, worker = self.proxies[number], self.workers[number]
        self.faults[name] = self.faults.get(name, 0) + 1
        moment = 0.05 + self.random.random()
        if name == "cut":
            proxy.cut()
        elif name == "cut all":
            for each in self.proxies:
                each.cut()
        elif name == "delay":
            proxy.delay = self.random.random() * 0.05
            time.sleep(moment)
            proxy.delay = 0.0
        elif name == "freeze":
            proxy.freeze()
            time.sleep(moment)
            proxy.thaw()
        elif name == "shut out":
            proxy.open = False
            proxy.cut()
            time.sleep(moment)
            proxy.open = True
        elif name == "stop":
            worker.send_signal(signal.SIGSTOP)
            time.sleep(moment)
            worker.send_signal(signal.SIGCONT)
        elif name == "freeze the server":
            os.kill(self.server.process.pid, signal.SIGSTOP)
            time.sleep(moment)
            os.kill(self.server.process.pid, signal.SIGCONT)
        else:
            worker.kill()
            worker.communicate()
            self.workers[number] = self._start(number)
            assert self.workers[number].stdout.readline() == "ready\n"

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.communicate()
        for proxy in self.proxies:
            proxy.close()


def soak(server, path: Path, seconds: float, seed: int) -> dict[str, float]:
    path.write_bytes(bytes(SIZE))
    ledger = Ledger(path)
    crowd = Crowd(server, path, seed)
    try:
        time.sleep(min(0.5, seconds / 10))
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            crowd.fault()
            time.sleep(crowd.random.random() * 0.3)
        totals = {**ledger.totals(), "faults": sum(crowd.faults.values())}
    finally:
        crowd.close()
        ledger.close()
    log = path.with_suffix(".log")
    said = log.read_text() if log.exists() else ""
    sys.stdout.write(
        f"\n{server.name}, {seconds:g} s, seed {seed}: {totals['reads']:,.0f} reads, {totals['loads']:,.0f} loads, "
        f"{totals['invalidations']:,.0f} invalidations, {totals['faults']} faults {crowd.faults}, "
        f"{totals['late']:,.0f} late by {totals['latest']:.3f} s at most, "
        f"{totals['shared']:,.0f} shared while the server was away, {totals['stale']:,.0f} stale reads\n{said}"
    )
    assert "failed" not in said, said
    assert totals["stale"] == 0, said
    return totals


@pytest.fixture(params=["valkey", "redis"])
def victim(request):
    """A server of its own, because it is frozen."""
    from tests.conftest import _serve

    yield from _serve(request.param)


def test_nothing_old_is_read_whatever_fails(victim, tmp_path) -> None:
    totals = soak(victim, tmp_path / "ledger", 4.0, seed=1)
    assert totals["reads"] > 100
    assert totals["invalidations"] > 10
    assert totals["faults"] >= 3


@pytest.mark.soak
def test_nothing_old_is_read_for_a_long_time(victim, tmp_path) -> None:
    soak(victim, tmp_path / "ledger", float(os.environ.get("CACHEKIT_SOAK_SECONDS", "600")), seed=int(time.time()))
