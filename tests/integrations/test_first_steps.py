"""The five lines of the docs, in a fresh project of their own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

FLASK = """
from app import app
client = app.test_client()
print([client.get("/products/1").headers["Cache-Status"].split(";")[1].strip() for _ in range(2)])
print(client.get("/search?q=oak").json == client.get("/search?q=oak").json)
"""
STARLETTE = """
import asyncio, httpx
from app import app
async def main():
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client:
        print([(await client.get("/products/1")).headers["cache-status"].split(";")[1].strip() for _ in range(2)])
        print(True)
asyncio.run(main())
"""


@pytest.mark.parametrize(("page", "program"), [("flask", FLASK), ("starlette", STARLETTE)])
def test_a_fresh_project_is_cached(tmp_path, page, program):
    pytest.importorskip(page)
    text = (DOCS / f"{page}.md").read_text("utf-8")
    source = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    assert sum("CacheKit" in line or "cached" in line or "kit." in line for line in source.splitlines()) <= 7
    (tmp_path / "app.py").write_text(source)
    (tmp_path / "ask.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "ask.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.splitlines() == ["['fwd=uri-miss', 'hit']", "True"], done.stderr


def test_flask_lists_its_commands_in_a_fresh_project(tmp_path):
    pytest.importorskip("flask")
    source = re.search(r"```python\n(.*?)```", (DOCS / "flask.md").read_text("utf-8"), re.DOTALL).group(1)
    (tmp_path / "app.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", "cachekit", "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert all(name in done.stdout for name in ("stats", "invalidate", "clear", "warm")), done.stderr
