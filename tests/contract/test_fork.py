"""A process that loads the application and then forks, as pre-fork servers do."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import threading
import traceback
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from cachekit import Cache, _fork
from cachekit.observe.monitor import HitRateMonitor
from cachekit.observe.otel import CacheInstruments
from cachekit.stores.node import Dial, Node
from cachekit.warm import Warmer

pytestmark = [pytest.mark.server, pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")]


def untold() -> int:
    """Fork as uWSGI does: past Python, whose hooks do not run."""
    return ctypes.PyDLL(None).fork()


def in_child(work, fork=os.fork) -> None:
    """Run *work* in a forked child, and fail with what it raises there."""
    read, write = os.pipe()
    pid = fork()
    if pid == 0:
        try:
            work()
            said = b""
        except BaseException:
            said = traceback.format_exc().encode()
        os.write(write, said or b"ok")
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    assert said == b"ok", said.decode()


@pytest.fixture(params=["memory://", "{url}", "tiered+{url}"])
def cache(request, server, clock):
    with Cache(request.param.format(url=server.url), clock=clock, timeout=5.0) as made:
        yield made


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_works_and_hears_of_invalidations(cache, server, clock):
    runs = []

    @cache.cached(ttl=60, tags=["t"])
    def load(x):
        runs.append(x)
        return len(runs)

    for _ in range(3):
        assert load(1) == 1
    shared = not cache.url.startswith("memory")

    def child():
        assert load(1) == 1
        cache.set("child", "was here")
        if shared:
            with Cache(server.url, clock=clock, timeout=5.0) as elsewhere:
                load(1)
                elsewhere.invalidate("t")
                deadline = threading.Event()
                for _ in range(200):
                    if load(1) == 2:
                        return
                    deadline.wait(0.02)
                raise AssertionError("the child still serves the old value")

    in_child(child)
    assert cache.get("child") == ("was here" if shared else None)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_not_inherit_a_held_lock_or_a_running_load(cache):
    loading, release = threading.Event(), threading.Event()

    @cache.cached(ttl=60, lock=False)
    def load():
        if threading.current_thread() is threading.main_thread():
            return "child"
        loading.set()
        release.wait(10)
        return "parent"

    thread = threading.Thread(target=load)
    thread.start()
    assert loading.wait(10)
    try:
        if cache.l1 is not None:
            with cache.l1._lock:  # as another thread might, in the moment of the fork

                def child():
                    assert cache.get("nothing") is None
                    assert load() == "child"

                in_child(child)
        else:
            in_child(lambda: load() == "child" or 1 / 0)
    finally:
        release.set()
        thread.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_process_that_watches_and_warms(clock):
    """The monitor, a collection or a warm-up may be under way in the parent while it forks."""
    cache = Cache(clock=clock)
    warmer = Warmer(progress=False)
    app = warmer.wsgi(lambda environ, start_response: [b"hello"])
    monitor = HitRateMonitor(cache, interval=3600)
    reader = InMemoryMetricReader()
    instruments = CacheInstruments(cache, meter_provider=MeterProvider([reader]))

    def child():
        signal.alarm(10)  # a deadlock ends it
        assert monitor.check() == []
        monitor.start()
        assert "cachekit-monitor" in [thread.name for thread in threading.enumerate()]
        assert reader.get_metrics_data() is not None
        assert app({"PATH_INFO": "/"}, None) == [b"hello"]

    with monitor, monitor._lock, instruments._shared._lock, app._turn:
        in_child(child)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_of_one_parent_hear_each_other(server, clock):
    """A server that loads the application before it forks: each worker is another process to its siblings."""
    with Cache(f"tiered+{server.url}", clock=clock, timeout=5.0) as cache:

        def sibling():
            cache.invalidate("t")

        def child():
            assert cache.get_or_set("k", lambda: "old", ttl=60, tags=["t"]) == "old"
            assert cache.get("k") == "old"
            pause = threading.Event()
            told = os.fork()
            if told == 0:  # a fork of this one, which has their parent's cache
                sibling()
                os._exit(0)
            os.waitpid(told, 0)
            for _ in range(200):
                if cache.get("k") is None:
                    return
                pause.wait(0.02)
            raise AssertionError("the child still serves what its sibling invalidated")

        in_child(child)
        assert cache.get_or_set("k", lambda: "new", ttl=60, tags=["t"]) == "new"
        in_child(sibling)
        pause = threading.Event()
        for _ in range(200):
            if cache.get("k") is None:
                return
            pause.wait(0.02)
        raise AssertionError("the parent still serves what its child invalidated")


ID = ("CLIENT", "ID")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("fork", [os.fork, untold])
@pytest.mark.parametrize("first", ["run", "arun", "ask_ahead", "run_all", "connection"])
def test_a_child_has_connections_of_its_own(server, fork, first):
    """One that two processes share gives each the answers of the other."""
    node = Node(Dial(server.url, 5.0, 10), "a server")
    ours = {node.run(ID), *node.run_all([ID])}

    def child():
        if first == "ask_ahead":
            asked = node.ask_ahead(ID)
            assert asked is None, "no connection stands ready"
        elif first == "connection":
            assert node.connection() is not None
        elif first == "arun":
            assert asyncio.run(node.arun(ID)) not in ours
        elif first == "run_all":
            assert not ours.intersection(node.run_all([ID]))
        assert node.run(ID) not in ours

    in_child(child, fork)
    assert node.run(ID) in ours
    node.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_many_threads_of_a_child_notice_at_once(server):
    node = Node(Dial(server.url, 5.0, 10), "a server")
    ours = node.run(ID)
    renewed = []

    class Slow:
        def renew(self):
            threading.Event().wait(0.05)  # long enough for the others to come
            renewed.append(self)

    slow = Slow()
    _fork.renew_in_child(slow, Slow.renew)

    def child():
        found = []
        threads = [threading.Thread(target=lambda: found.append(node.run(ID))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8 and ours not in found and len(renewed) == 1

    in_child(child, untold)
    node.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_uwsgi_tells_its_workers(monkeypatch, server, clock):
    told = []
    uwsgi = SimpleNamespace(worker_id=lambda: 0, post_fork_hook=lambda: told.append("theirs"))
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    with Cache(f"tiered+{server.url}", clock=clock, timeout=5.0) as cache:
        assert cache.get_or_set("k", lambda: "old", ttl=60, tags=["t"]) == "old"
        hook = uwsgi.post_fork_hook
        Cache("memory://").close()
        assert uwsgi.post_fork_hook is hook, "asked once"
        hook()
        assert told == ["theirs"] and cache.l1._nodes, "in the process itself nothing changes"
        uwsgi.post_fork_hook = lambda: told.append("another")  # as uwsgidecorators does when it is imported
        Cache("memory://").close()

        def child():
            signal.alarm(20)
            uwsgi.post_fork_hook()
            assert told == ["theirs", "another"]
            assert _fork._told == [os.getpid()], "before anything travels"
            assert cache.get("k") == "old"
            with Cache(server.url, clock=clock, timeout=5.0) as elsewhere:
                elsewhere.invalidate("t")
            for _ in range(200):
                if cache.get("k") is None:
                    return
                threading.Event().wait(0.02)
            raise AssertionError("the worker does not hear what others invalidate")

        with cache.l1._lock:  # as another thread might, in the moment of the fork
            in_child(child, untold)
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace())  # not the server's, but some package of that name
    Cache("memory://").close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("fork", [os.fork, untold])
def test_instances_of_two_children_are_told_apart(server, fork):
    """Each worker makes its own, and all keep their results on one server."""

    class Visitor:
        def __init__(self, name):
            self.name = name

    with Cache(server.url, timeout=5.0) as cache:

        class Page(Visitor):
            @cache.cached(ttl=60)
            def greeting(self):
                return f"hello {self.name}"

        assert Page("nobody").greeting() == "hello nobody"

        def child(name):
            signal.alarm(20)
            assert Page(name).greeting() == f"hello {name}"

        for name in ("ann", "ben"):
            in_child(lambda name=name: child(name), fork)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("fork", [os.fork, untold])
def test_a_thread_that_is_started_anew_waits_until_all_is_renewed(server, fork):
    node = Node(Dial(server.url, 5.0, 10), "a server")
    ours = node.run(ID)
    renewed, found = [], []

    class Starts:
        def renew(self):
            renewed.append(self)
            thread = threading.Thread(target=lambda: found.append(node.run(ID)))
            thread.start()
            thread.join(0.1)  # it must not be done by then
            assert not found

    starts = Starts()
    _fork.renew_in_child(starts, Starts.renew)

    def child():
        signal.alarm(20)
        assert node.run(ID) != ours  # perhaps that of the thread, which has given it back
        assert len(renewed) == 1

    in_child(child, fork)
    node.close()
