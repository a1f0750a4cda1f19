"""Letting time pass on a server, which counts it by itself: everything that sessions keep there becomes older.

Knows the layout of ``cachekit.sessions.redis``: times in the heads of values, scores of the indexes, what keys live.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

TIMES = {b"CS1": ((3, 18), (18, 33), (64, 79)), b"CM1": ((3, 18),)}
"""Where the times stand in each kind of value, in milliseconds; zeros are no time."""


def grow_older(clients: Iterable[Any], seconds: float) -> None:
    """Make every session on the servers of *clients* as old as it will be in *seconds*."""
    for client in clients:
        for name in list(client.scan_iter("*:s*:{*}*")):
            _age(client, name, math.ceil(seconds * 1000))


def _age(client: Any, name: bytes, by: int) -> None:
    lives = client.pttl(name)
    assert lives != -1, f"{name!r} never ends"
    if lives <= by:
        client.delete(name)
    elif client.type(name) == b"zset":
        for member, score in client.zrange(name, 0, -1, withscores=True):
            client.zadd(name, {member: score - by})
    else:
        value = client.get(name)
        for start, end in TIMES[value[:3]]:
            if int(value[start:end]):
                client.setrange(name, start, f"{int(value[start:end]) - by:015d}")
    client.pexpire(name, lives - by)
