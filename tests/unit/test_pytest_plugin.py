"""The fixtures that pytest finds by itself, and ``calls``."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cachekit import Cache
from cachekit.testing import calls

ROOT = Path(__file__).parents[2]


def test_calls_counts_what_happens_within_it(cache: Cache, clock) -> None:
    @cache.cached(ttl=10, stale_if_error=50)
    def load(x):
        if clock.now > start + 5:
            raise ValueError
        return x

    @cache.cached
    def other():
        return 1

    start = clock.now
    load(1)
    with calls(cache) as seen:
        assert (seen.hits, seen.misses) == (0, 0)
        load(1)
        assert (seen.hits, seen.misses) == (1, 0)
        load(2)
        other()
    assert (seen.hits, seen.misses, seen.loads, seen.load_errors, seen.stale) == (1, 2, 2, 0, 0)
    load(1)
    assert seen.hits == 1
    assert (seen.of(load).hits, seen.of(load).misses, seen.of(other).misses) == (1, 1, 1)
    assert repr(seen) == "<1 hits, 2 misses, 0 stale, 2 loads, 0 errors>"
    clock.advance(12)
    with calls(cache) as seen:
        load(1)
    assert (seen.stale, seen.load_errors) == (1, 1)
    with pytest.raises(LookupError, match="is not decorated by this cache"):
        seen.of(Cache)


def test_calls_ends_with_an_exception_too(cache: Cache) -> None:
    with pytest.raises(RuntimeError), calls(cache) as seen:
        cache.get("k")
        raise RuntimeError
    cache.get("k")
    assert seen.misses == 1


def test_calls_of_coroutine_functions_and_methods(cache: Cache) -> None:
    class Shop:
        @cache.cached
        async def price(self, x):
            return x

    async def job():
        shop = Shop()
        await shop.price(1)
        with calls(cache) as seen:
            await shop.price(1)
        return seen.of(Shop.price).hits

    assert asyncio.run(job()) == 1


SUITE = """
from cachekit.testing import ManualClock, calls

def test_fixtures(cachekit_cache, cachekit_clock):
    assert isinstance(cachekit_clock, ManualClock) and cachekit_cache.clock is cachekit_clock
    cachekit_cache.set("k", 1, ttl=60)
    with calls(cachekit_cache) as seen:
        assert cachekit_cache.get("k") == 1
    assert seen.hits == 1
    cachekit_clock.advance(61)
    assert cachekit_cache.get("k") is None

def test_each_test_has_its_own(cachekit_cache):
    assert cachekit_cache.get("k") is None
    assert cachekit_cache.stats().entries == 0

def test_a_call_that_was_no_hit(cachekit_cache):
    with calls(cachekit_cache) as seen:
        cachekit_cache.get("k")
    assert seen.hits == 1
"""


def test_the_fixtures(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    options = [
        "-p",
        "cachekit.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "-q",
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "where 0 = <0 hits, 1 misses" in done.stdout


def test_the_plugin_is_light() -> None:
    """pytest loads it in every session where cachekit is installed, before coverage is measured."""
    program = "import sys, cachekit.pytest_plugin; print(sorted(n for n in sys.modules if n.startswith('cachekit')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "['cachekit', 'cachekit.pytest_plugin']"


def test_the_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"cachekit.pytest_plugin": "cachekit.pytest_plugin"}
