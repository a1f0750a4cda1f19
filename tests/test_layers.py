"""Imports flow one way: a module imports only what stands above it in this list, or its siblings in one package."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cachekit"

LAYERS = [
    "errors", "clock", "_fork", "around", "_io", "_loops", "events", "policy", "entry", "keys", "tags", "modes", "loading",
    "uncommitted", "breaker", "signatures", "options", "codecs", "arguments",
    "stores", "jobs", "flight", "keeping", "leases", "engine", "transaction",
    "shell", "instances", "classmethods", "decorator", "many", "functions", "contents", "making", "stats",
    "cdn", "purging", "facade", "default", "jinja", "observe", "warm", "http", "compress", "sessions", "webhook", "degrade",
    "dashboard",
    "asgi", "wsgi", "proxy", "closing", "edge_config", "config", "serve", "cli", "__main__",
]  # fmt: skip
ASIDE = {"_calls": "stats", "testing": "stats", "pytest_plugin": "facade"}
"""Modules that nothing of cachekit may import but those after them, and the lowest layer that they may use."""
PURE = [
    "errors", "events", "policy", "entry", "keys", "tags", "modes", "loading", "uncommitted", "breaker", "signatures",
    "options",
]  # fmt: skip
IMPURE = {"asyncio", "concurrent", "os", "random", "socket", "subprocess", "threading", "time"}


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    """Yield what *path* imports, in functions and under TYPE_CHECKING too; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


MODULES = dict(modules())


def test_every_module_has_its_place() -> None:
    assert {layer(name) for name in MODULES} == {"", *LAYERS, *ASIDE}


@pytest.mark.parametrize("name", MODULES)
def test_imports_flow_one_way(name: str) -> None:
    own = layer(name)
    if own == "":
        return  # the package itself loads its names lazily
    if own in ASIDE:
        names = list(ASIDE)
        allowed = {*LAYERS[: LAYERS.index(ASIDE[own]) + 1], *names[: names.index(own) + 1]}
    else:
        allowed = {*LAYERS[: LAYERS.index(own) + 1]}
    wrong = []
    for imported in imports(MODULES[name]):
        if imported.split(".")[0] != "cachekit" or imported == "cachekit.__version__":
            continue
        target = layer(imported)
        if target not in allowed:  # which a name of the package itself is not: it may be any of its modules
            wrong.append(imported)
    assert wrong == []


@pytest.mark.parametrize("name", PURE)
def test_the_core_is_pure(name: str) -> None:
    assert {imported.split(".")[0] for imported in imports(PACKAGE / f"{name}.py")} & IMPURE == set()


def test_integrations_use_only_what_is_public_enough() -> None:
    """They wire frameworks; stores, engine and shell are none of their business."""
    hidden = {"engine", "flight", "instances", "shell", "stores", "decorator", "_io", "testing"}
    for path in (ROOT / "integrations").rglob("*.py"):
        used = {layer(name) for name in imports(path) if name.split(".")[0] == "cachekit"}
        assert used & hidden == set(), path
