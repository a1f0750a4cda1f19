"""What reads bytes from outside raises nothing but what it says: see ``tests/fuzzing.py``."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzzing import SEEDS, TARGETS, inputs

ROOT = Path(__file__).parent.parent.parent
RUNS = int(os.environ.get("CACHEKIT_FUZZ_RUNS", "100000"))


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs(name):
    for data in inputs():
        TARGETS[name](data)


@pytest.mark.soak
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed here")
@pytest.mark.parametrize("name", TARGETS)
def test_many_inputs(name, tmp_path):
    for number, seed in enumerate(SEEDS):
        (tmp_path / str(number)).write_bytes(seed)
    command = [
        sys.executable,
        "-m",
        "tests.fuzzing",
        name,
        f"-runs={RUNS}",
        "-max_len=512",
        "-verbosity=0",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
