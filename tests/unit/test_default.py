"""The default cache: made when it is first needed, from the environment, once a process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def run(program: str, url: str | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "CACHEKIT_URL"}
    if url is not None:
        environment["CACHEKIT_URL"] = url
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize(
    ("url", "shown"),
    [(None, "memory://"), ("", "memory://"), ("tiered+redis://localhost:1/0", "localhost:1/0")],
)
def test_the_url_comes_from_the_environment(url, shown) -> None:
    assert shown in run("import cachekit; print(cachekit.cache)", url)


def test_one_a_process_shared_by_the_module_functions() -> None:
    program = """
import cachekit, itertools
runs = itertools.count()
@cachekit.cached(ttl="5m", tags=["x:{x}"])
def load(x): return next(runs)
@cachekit.cached
def bare(x): return next(runs)
assert [load(1), load(1), bare(1), bare(1)] == [0, 0, 1, 1]
cachekit.cache.invalidate("x:1")
assert load(1) == 2
assert cachekit.cache is cachekit.default_cache() is cachekit.use(cachekit.cache)
try: cachekit.use(cachekit.Cache())
except cachekit.ConfigError as exc: print("in use already" in str(exc))
"""
    assert run(program) == "True"


def test_another_cache_may_be_made_the_default_first() -> None:
    program = """
import cachekit
mine = cachekit.use(cachekit.Cache(namespace="mine"))
print(cachekit.cache is mine)
"""
    assert run(program, "nonsense://") == "True"


def test_a_url_that_cannot_be_used_names_the_variable() -> None:
    said = run("import cachekit; cachekit.cache", "nonsense://x")
    assert said.endswith("in front of a server")
    assert "cachekit.errors.ConfigError: CACHEKIT_URL: unknown URL scheme 'nonsense'" in said
