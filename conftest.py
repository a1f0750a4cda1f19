"""Every example in README, docs and docstrings is a test, and no test may hang."""

from __future__ import annotations

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

pytest_plugins = ["tests.limits"]

markdown = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()], patterns=["*.md"], excludes=["CHANGELOG.md"])
docstrings = Sybil(parsers=[DocTestParser()], patterns=["cachekit/*.py", "cachekit/**/*.py", "integrations/**/*.py"])

pytest_collect_file = (markdown + docstrings).pytest()
