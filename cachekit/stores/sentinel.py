"""The server that the Sentinels name: ``sentinel://host1:26379,host2:26379/0?service=mymaster``.

Asks one Sentinel after the other for the primary, makes sure that it is one, and forgets it when it fails or is no
primary any more. While there is none, calls fail at once, as they do when a server is away. Must not know what the
commands mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cachekit._io import ASYNCIO, BLOCKING, IO, drive
from cachekit.errors import StoreError, StoreTimeout, StoreUnavailable
from cachekit.stores.link import Arg, Shared, Single, settle
from cachekit.stores.node import Node, at


class SentinelLink(Single):
    """Runs commands and scripts on the primary of a service, in both worlds."""

    pulse: tuple[str, ...] = ("ROLE",)

    def __init__(self, url: str, *, timeout: float = 0.25, max_connections: int = 64) -> None:
        super().__init__(url, timeout=timeout, max_connections=max_connections)
        dial = replace(self.dial, url=self.address.sentinel_url)
        self._sentinels = [at(dial, host, port, replaceable=False) for host, port in self.address.hosts]
        self._nodes: dict[tuple[str, int], Node] = {}
        self._primary: Node | None = None
        self._shared = Shared()

    def gist(self, reply: Any) -> object:
        """Return the role: a connection that leads to a replica now is not to be listened to."""
        return reply[0] if isinstance(reply, list) and reply else reply

    def blocking_command(self, args: Sequence[Arg], once: bool = False) -> Any:
        return drive(self._attempt(BLOCKING, args, once=once))

    async def aio_command(self, args: Sequence[Arg], once: bool = False) -> Any:
        return await self._attempt(ASYNCIO, args, once=once)

    async def _attempt(self, io: IO, args: Sequence[Arg], *, once: bool) -> Any:
        node = await self._node(io)
        try:
            return await io.call(node.run, node.arun, args, once)
        except StoreError as exc:
            if not self._lost(node, exc) or once or isinstance(exc, StoreTimeout):
                raise
        node = await self._node(io)
        try:
            return await io.call(node.run, node.arun, args, once)
        except StoreError as exc:
            self._lost(node, exc)
            raise

    def _lost(self, node: Node, error: StoreError) -> bool:
        """Say whether *error* means that *node* may be the primary no longer; if so, forget that it was."""
        from redis.exceptions import ReadOnlyError

        if not isinstance(error, (StoreTimeout, StoreUnavailable)) and not isinstance(error.__cause__, ReadOnlyError):
            return False
        node.unsettle()
        if self._primary is node:
            self._primary = None
        return True

    @property
    def _known(self) -> Node | None:
        return self._primary

    async def _node(self, io: IO) -> Node:
        node = self._primary
        if node is not None and node.settled:
            return node
        return await self._shared.run(io, repr(self), 2 * self.timeout, lambda: self._find(io))

    async def _find(self, io: IO) -> Node:
        error: StoreError | None = None
        for sentinel in list(self._sentinels):
            try:
                said = await io.call(
                    sentinel.run, sentinel.arun, ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.address.service)
                )
            except StoreError as exc:
                error = exc
                continue
            self._sentinels.remove(sentinel)  # one that answers comes first the next time
            self._sentinels.insert(0, sentinel)
            if not said:
                raise StoreUnavailable(f"{self!r}: the Sentinel at {sentinel!r} knows no {self.address.service!r}")
            place = (said[0].decode(), int(said[1]))
            node = self._nodes.get(place)
            if node is None:
                node = self._nodes[place] = at(self.dial, *place)
            node.unsettle()

            async def run(_: Arg, command: Sequence[Arg], node: Node = node) -> Any:
                return await io.call(node.run, node.arun, command)

            await settle(io, node, self._settlers, run)
            self._primary = node
            return node
        raise StoreUnavailable(f"{self!r}: no Sentinel answers: {error}") from error

    async def close(self, io: IO) -> None:
        for node in (*self._sentinels, *self._nodes.values()):
            node.close()
        await io.call(lambda: None, self._aclose)

    async def _aclose(self) -> None:
        for node in (*self._sentinels, *self._nodes.values()):
            await node.aclose()
