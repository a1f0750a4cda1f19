"""Where purges wait: in this process, or on the server beside the cache, where they survive this process.

Owns what putting, claiming and settling mean, twice: in Python and, for a server, in Lua that decides where the state is.
One purger's outbox lies in one slot (``{ns:outbox}``). Must not know CDNs, retries or threads.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any, Final, Protocol

from cachekit._fork import renew_in_child
from cachekit._io import IO
from cachekit.cdn.base import Rate
from cachekit.stores.link import Link, Script

_MOST: Final = 512
"""Targets that are claimed at a time; no CDN takes more in one call."""
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Item:
    """A target that waits.

    Attributes:
        target: as text.
        gen: changes whenever it is put again.
        since: when it was put first.
        last: when it was put last.
        tries: deliveries that failed so far.
        phase: 0 until it is delivered, 1 while it waits to be delivered once more.
        batch: the largest call that it may be part of; 0 for any.
        dead: whether it was given up.
    """

    target: str
    gen: int
    since: float
    last: float
    tries: int = 0
    phase: int = 0
    batch: int = 0
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """What to do next: ``due`` with items, or how long to wait; below 0 until something is put.

    The other words are ``idle`` (nothing is due), ``wait`` (the pace, or a CDN that asked to wait) and ``held`` (another
    process delivers).
    """

    what: str
    wait: float
    items: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of an item: ``done``, ``retry``, ``split`` or ``dead``; *due* is when it is to be delivered (again)."""

    item: Item
    what: str
    due: float = 0.0
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Count:
    """How it stands with one purger.

    Attributes:
        pending: targets that the CDN has not confirmed.
        oldest: when the oldest of them was put, or None.
        again: targets that were confirmed and wait to be purged once more.
        dead: targets that were given up.
        dead_targets: the first hundred of them.
        delivered: confirmations so far.
        failed: deliveries that failed so far.
        error: what was wrong last, or empty.
        error_at: when that was, or None.
    """

    pending: int = 0
    oldest: float | None = None
    again: int = 0
    dead: int = 0
    dead_targets: tuple[str, ...] = ()
    delivered: int = 0
    failed: int = 0
    error: str = ""
    error_at: float | None = None


class Box(Protocol):
    """Keeps what waits. Raises ``StoreError`` when it is away, and nothing else."""

    async def put(self, io: IO, purger: str, targets: Sequence[str], now: float, due: float) -> int:
        """Put *targets*, to be delivered from *due* on. Returns how many were not waiting yet."""
        ...

    async def claim(self, io: IO, purger: str, token: str, lease: float, now: float, rate: Rate | None) -> Claim:
        """Take the right to deliver for *lease* seconds, and what is due."""
        ...

    async def settle(
        self, io: IO, purger: str, token: str, now: float, hold: float, error: str, settled: Sequence[Settled]
    ) -> None:
        """Take in what became of items, and give the right back; until *hold* nothing is due."""
        ...

    async def count(self, io: IO, purger: str) -> Count:
        """Return how it stands."""
        ...


@dataclass(slots=True)
class _Shelf:
    items: dict[str, Item] = field(default_factory=dict)
    due: dict[str, float] = field(default_factory=dict)
    gen: int = 0
    hold: float = 0.0
    full: float = 0.0
    token: str = ""
    delivered: int = 0
    failed: int = 0
    error: str = ""
    error_at: float | None = None


class MemoryBox:
    """Keeps what waits in this process: it is lost when the process ends. A forked child starts with nothing."""

    def __init__(self) -> None:
        self._renew()
        renew_in_child(self, MemoryBox._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._shelves: dict[str, _Shelf] = {}

    def _shelf(self, purger: str) -> _Shelf:
        return self._shelves.setdefault(purger, _Shelf())

    async def put(self, io: IO, purger: str, targets: Sequence[str], now: float, due: float) -> int:  # noqa: ARG002 - the port
        added = 0
        with self._lock:
            shelf = self._shelf(purger)
            for target in targets:
                shelf.gen += 1
                item = shelf.items.get(target)
                if item is not None and not item.dead and item.phase == 0:
                    shelf.items[target] = replace(item, gen=shelf.gen, last=now)
                else:
                    shelf.items[target] = Item(target, shelf.gen, now, now)
                    shelf.due[target] = due
                    added += 1
        return added

    async def claim(self, io: IO, purger: str, token: str, lease: float, now: float, rate: Rate | None) -> Claim:  # noqa: ARG002 - the port
        with self._lock:
            shelf = self._shelf(purger)
            if shelf.token not in ("", token):
                return Claim("held", 0.05)
            names = sorted((at, name) for name, at in shelf.due.items() if at <= now)[:_MOST]
            if not names:
                return Claim("idle", min(shelf.due.values()) - now if shelf.due else -1.0)
            if shelf.hold > now:
                return Claim("wait", shelf.hold - now)
            if rate is not None:
                interval = 1 / rate.per_second
                full = max(shelf.full, now)
                early = full - now - interval * (rate.burst - 1)
                if early > 1e-6:
                    return Claim("wait", early)
                shelf.full = full + interval
            shelf.token = token
            return Claim("due", 0.0, tuple(shelf.items[name] for _, name in names))

    async def settle(
        self, io: IO, purger: str, token: str, now: float, hold: float, error: str, settled: Sequence[Settled]  # noqa: ARG002 - the port
    ) -> None:  # fmt: skip
        with self._lock:
            shelf = self._shelf(purger)
            for each in settled:
                self._settle(shelf, each)
            shelf.hold = hold
            if error:
                shelf.error, shelf.error_at = error, now
            if shelf.token == token:
                shelf.token = ""

    @staticmethod
    def _settle(shelf: _Shelf, each: Settled) -> None:
        name = each.item.target
        item = shelf.items.get(name)
        if each.what == "done":
            shelf.delivered += item is None or item.phase == 0
        elif each.what == "retry":
            shelf.failed += 1
        if item is None or item.dead:
            return
        same = item.gen == each.item.gen
        if each.what == "done":
            if not same:
                shelf.items[name] = replace(item, tries=0, batch=0)
            elif item.phase == 0 and each.due > 0:
                shelf.items[name] = replace(item, phase=1, tries=0, batch=0)
                shelf.due[name] = each.due
            else:
                del shelf.items[name]
                shelf.due.pop(name, None)
        elif each.what == "dead" and same:
            shelf.items[name] = replace(item, dead=True)
            shelf.due.pop(name, None)
        else:
            shelf.items[name] = replace(item, batch=each.batch, tries=item.tries + (each.what != "split"))
            shelf.due[name] = each.due

    async def count(self, io: IO, purger: str) -> Count:  # noqa: ARG002 - the port
        with self._lock:
            shelf = self._shelf(purger)
            items = list(shelf.items.values())
            pending = [item for item in items if not item.dead and item.phase == 0]
            dead = tuple(item.target for item in items if item.dead)
            return Count(
                len(pending),
                min((item.since for item in pending), default=None),
                sum(1 for item in items if item.phase == 1 and not item.dead),
                len(dead),
                dead[:_SHOWN],
                shelf.delivered,
                shelf.failed,
                shelf.error,
                shelf.error_at,
            )

    def is_empty(self) -> bool:
        """Say whether nothing waits for its first delivery."""
        with self._lock:
            return not any(
                item.phase == 0 and not item.dead for shelf in self._shelves.values() for item in shelf.items.values()
            )

    def forget(self, purger: str, targets: Sequence[str]) -> None:
        """Forget *targets*: another box has them now."""
        with self._lock:
            shelf = self._shelf(purger)
            for target in targets:
                shelf.items.pop(target, None)
                shelf.due.pop(target, None)


@cache
def _script(name: str) -> Script:
    source = resources.files("cachekit.cdn").joinpath("lua", f"{name}.lua").read_text("utf-8")
    return Script(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


class ServerBox:
    """Keeps what waits on a Redis or Valkey server.

    Args:
        link: the server.
        namespace: prefix of the keys; processes with the same one share the outbox.
    """

    def __init__(self, link: Link, namespace: str) -> None:
        self._link = link
        self._namespace = namespace

    def _keys(self, purger: str, *names: str) -> list[str]:
        return [f"{{{self._namespace}:outbox}}:{purger}:{name}" for name in names]

    async def put(self, io: IO, purger: str, targets: Sequence[str], now: float, due: float) -> int:
        keys = self._keys(purger, "due", "items", "since", "dead", "counts")
        added = 0
        for start in range(0, len(targets), _MOST):
            batch = targets[start : start + _MOST]
            added += await self._link.script(io, _script("put"), keys, [repr(now), repr(due), *batch])
        return added

    async def claim(self, io: IO, purger: str, token: str, lease: float, now: float, rate: Rate | None) -> Claim:
        what, wait, *pairs = await self._link.script(
            io,
            _script("claim"),
            self._keys(purger, "due", "items", "lease", "pace"),
            [
                token, int(lease * 1000), repr(now), _MOST,
                "0" if rate is None else repr(1 / rate.per_second), 0 if rate is None else rate.burst,
            ],
        )  # fmt: skip
        items = [_item(name, raw) for name, raw in zip(pairs[::2], pairs[1::2], strict=True) if raw]
        return Claim(what.decode(), float(wait), tuple(items))

    async def settle(
        self, io: IO, purger: str, token: str, now: float, hold: float, error: str, settled: Sequence[Settled]
    ) -> None:
        parts = [part for s in settled for part in (s.item.target, s.item.gen, s.what, repr(s.due), s.batch)]
        keys = self._keys(purger, "due", "items", "since", "dead", "counts", "lease", "pace")
        await self._link.script(io, _script("settle"), keys, [token, repr(now), repr(hold), error, *parts])

    async def count(self, io: IO, purger: str) -> Count:
        keys = self._keys(purger, "due", "since", "dead", "counts")
        pending, oldest, due, dead, counts, shown = await self._link.script(io, _script("status"), keys, [])
        known: dict[str, str] = dict(zip(*[map(_text, counts)] * 2, strict=True))
        return Count(
            pending,
            float(oldest) if oldest else None,
            due - pending,
            dead,
            tuple(map(_text, shown)),
            int(known.get("delivered", 0)),
            int(known.get("failed", 0)),
            known.get("error", ""),
            float(known["error_at"]) if "error_at" in known else None,
        )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _item(name: bytes, raw: bytes) -> Item:
    state: dict[str, Any] = json.loads(raw)
    return Item(
        name.decode(), int(state["gen"]), float(state["since"]), float(state["last"]), int(state["tries"]),
        int(state["phase"]), int(state["batch"]), bool(state["dead"]),
    )  # fmt: skip
