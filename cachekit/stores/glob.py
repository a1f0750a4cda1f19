"""Patterns over keys, as Redis understands them, for the store that has no server. Pure."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=256)
def glob(pattern: str) -> re.Pattern[str]:
    r"""Return the expression for a pattern of Redis: ``*``, ``?``, ``[abc]``, ``[^a]``, ``[a-z]`` and ``\`` to escape."""
    made, at = "", 0
    while at < len(pattern):
        char, at = pattern[at], at + 1
        if char == "*":
            made += ".*"
        elif char == "?":
            made += "."
        elif char == "\\" and at < len(pattern):
            made, at = made + re.escape(pattern[at]), at + 1
        elif char == "[" and (end := pattern.find("]", at + 1)) > 0:
            inside, at = pattern[at:end], end + 1
            negated = inside.startswith("^")
            chosen = re.sub(r"([\\\]\[^])", r"\\\1", inside[1:] if negated else inside)
            made += f"[{'^' if negated else ''}{chosen}]"
        else:
            made += re.escape(char)
    return re.compile(f"(?s:{made})\\Z")
