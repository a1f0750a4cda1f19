"""A cluster: ``redis+cluster://host:port,host2:port``. Every command goes to the primary that has its key.

Owns the map of slots and what changes it: ``MOVED``, ``ASK``, servers that fail, replicas that are promoted. Commands of
one call travel together, one round trip to each primary, all primaries at once. No command touches two slots. Must not
know what the commands mean.

The client library's cluster client is not used: its asyncio form refuses more than a hundred requests in flight to a
server, and neither form tells a promoted replica from a server that came back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakMethod

from cachekit._io import BLOCKING, IO, drive
from cachekit.errors import StoreError, StoreTimeout, StoreUnavailable
from cachekit.stores.link import Arg, Call, Script, Settle, Shared, checked, replies_of, settle
from cachekit.stores.multiget import MultiGet, Name
from cachekit.stores.node import Ahead, Node, at
from cachekit.stores.rounds import asend, ask_for_slots, outcome_of, send

SLOTS: Final = 16384

_HOPS: Final = 6
_ON_THE_WAY: Final = 0.005
_READS: Final = 8
_SWEEP: Final = 1000


def slot_of(key: Arg) -> int:
    """Return the slot of *key*."""
    from redis.crc import key_slot

    return key_slot(key if isinstance(key, bytes) else str(key).encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Which primary has which slot; a slot without one is in nobody's hands now."""

    owners: list[Node | None] = field(repr=False)
    primaries: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Routed:
    """A command and the key by which it finds its server, or the server itself."""

    key: Arg
    command: Sequence[Arg]
    node: Node | None = None


class ClusterLink:
    """Runs commands and scripts on a cluster, in both worlds.

    Args:
        url: ``redis+cluster://`` or ``valkey+cluster://`` (``rediss+cluster://``, ``valkeys+cluster://`` with
            TLS) and one or more nodes.
        timeout: seconds that a command may take, connecting included.
        max_connections: bound of the connections to each primary, in each world.

    Raises:
        ConfigError: the URL or a number cannot be used.
    """

    pulse: tuple[str, ...] = ("CLUSTER", "SLOTS")

    def __init__(self, url: str, *, timeout: float = 0.25, max_connections: int = 64) -> None:
        self.address, self.dial = checked(url, timeout, max_connections)
        self.timeout = timeout
        self._max_connections = max_connections
        self._settlers: list[WeakMethod[Settle]] = []
        self._nodes: dict[tuple[str, int], Node] = {}
        self._reads: dict[Node, MultiGet] = {}
        self._seeds = [self._at(*place) for place in self.address.hosts]
        self._map: SlotMap | None = None
        self._next: SlotMap | None = None
        self._stale = False
        self._shared = Shared()
        self.moves = 0
        """How many times a slot was seen to move."""
        self.settlings = 0  # how many times a primary was settled

    def __repr__(self) -> str:
        return f"ClusterLink({self.address.shown!r})"

    @property
    def url(self) -> str:
        """Return the URL of the first node, as the client library understands it."""
        return self.address.url

    def _at(self, host: str, port: int) -> Node:
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes[host, port] = at(self.dial, host, port)
            self._reads[node] = MultiGet(
                lambda names: node.run_all([("GET", name) for name in names]),
                lambda names: node.arun_all([("GET", name) for name in names]),
                timeout=self.timeout,
                name=repr(node),
            )
        return node

    # -- the map ------------------------------------------------------------------------------------------------------

    async def _slots(self, io: IO, *, trusting: bool = False) -> SlotMap:
        if trusting and (found := self._next or self._map) is not None:
            return found
        found = self._map
        if found is not None and not self._stale:
            return found
        return await self._shared.run(io, repr(self), 4 * self.timeout, lambda: self._refresh(io))

    async def prepare(self, io: IO) -> None:
        """Learn who the primaries are, if that is not known. Raises ``StoreError``."""
        await self._slots(io)

    async def _refresh(self, io: IO) -> SlotMap:
        error: StoreError | None = None
        known = self._map.primaries if self._map is not None else ()
        self._stale = False
        for node in dict.fromkeys((*known, *self._seeds)):
            try:
                found = self._next = self._read_map(await ask_for_slots(io, node), node)
            except StoreError as exc:
                error = exc
                continue
            for primary in found.primaries:  # before the map is used: each that is new drops what was kept
                with suppress(StoreError):  # whoever needs that one learns of it
                    await self._ready(io, primary)
            self._map, self._next = found, None
            return found
        self._stale = True
        raise StoreUnavailable(f"{self!r}: no node answers: {error}") from error

    def _read_map(self, said: Any, asked: Node) -> SlotMap:
        owners: list[Node | None] = [None] * SLOTS
        assert asked.place is not None
        for first, last, primary, *_ in said:
            host = primary[0].decode() if primary[0] else asked.place[0]
            owners[first : last + 1] = [self._at(host, primary[1])] * (last + 1 - first)
        primaries = tuple(dict.fromkeys(node for node in owners if node is not None))
        if not primaries:
            raise StoreUnavailable(f"{asked!r} is a node of no cluster, or of one without slots")
        before = set(self._map.primaries) if self._map is not None else set()
        if self._map is None or owners != self._map.owners:
            self.moves += 1
        for node in primaries:
            if node not in before:
                node.unsettle()
        return SlotMap(owners, primaries)

    def _moved(self, slot: int, to: Node) -> None:
        found = self._map
        self.moves += 1
        to.unsettle()  # it may have been promoted
        if found is not None and to in found.primaries:
            found.owners[slot] = to
        else:
            self._stale = True

    async def _ready(self, io: IO, node: Node) -> None:
        async def run(key: Arg, command: Sequence[Arg]) -> Any:
            return replies_of(self, await self.run(io, [Routed(key, command)], trusting=True))[0]

        async def settled() -> None:
            await settle(io, node, self._settlers, run)
            self.settlings += 1

        if not node.settled:
            await self._shared.run(io, node, 3 * self.timeout, settled)

    def settle_by(self, settle: WeakMethod[Settle]) -> None:
        """Have *settle* called with each primary before anything else uses it."""
        self._settlers.append(settle)
        for node in self._nodes.values():
            node.unsettle()

    # -- commands -----------------------------------------------------------------------------------------------------

    async def run(self, io: IO, calls: Sequence[Routed], *, once: bool = False, trusting: bool = False) -> list[Any]:
        """Run *calls*, each on the primary of its key. Returns the replies, errors of single calls among them.

        Args:
            io: the world.
            calls: the commands.
            once: never send a command again after it was sent.
            trusting: use servers that are not settled; for those who settle them.
        """
        from redis.exceptions import AskError, MovedError, TryAgainError

        replies: list[Any] = [None] * len(calls)
        slots = [slot_of(call.key) for call in calls]
        asked: dict[int, Node] = {}
        failed: set[Node] = set()
        todo = list(range(len(calls)))
        for _ in range(_HOPS):
            batches: dict[Node, list[int]] = {}
            owners = (await self._slots(io, trusting=trusting)).owners
            for i in todo:
                owner = asked.get(i) or calls[i].node or owners[slots[i]]
                if owner is None:
                    self._stale = True
                    replies[i] = StoreUnavailable(f"{self!r}: slot {slots[i]} is in nobody's hands")
                else:
                    batches.setdefault(owner, []).append(i)
            todo = []
            waits = False
            for node, outcome in (await self._round(io, calls, batches, asked, trusting=trusting)).items():
                if isinstance(outcome, StoreError):
                    replies = [outcome if i in batches[node] else reply for i, reply in enumerate(replies)]
                    self._suspect(node)
                    if node not in failed and not once and not isinstance(outcome, StoreTimeout):
                        todo += batches[node]
                    failed.add(node)
                    continue
                for i, reply in zip(batches[node], outcome, strict=True):
                    replies[i] = reply
                    asked.pop(i, None)
                    if isinstance(reply, AskError):
                        target = self._at(reply.host or node.place[0], reply.port)  # type: ignore[index]
                        if isinstance(reply, MovedError):
                            self._moved(slots[i], target)
                        else:
                            asked[i] = target
                        todo.append(i)
                    elif isinstance(
                        reply, TryAgainError
                    ):  # some of its keys have left with their slot, others have not
                        waits = True
                        todo.append(i)
            if not todo:
                break
            if waits:
                await io.sleep(_ON_THE_WAY)
        return replies

    async def _round(
        self,
        io: IO,
        calls: Sequence[Routed],
        batches: dict[Node, list[int]],
        asked: dict[int, Node],
        *,
        trusting: bool,
    ) -> dict[Node, list[Any] | StoreError]:
        """Send each node its calls, and return what each answered: replies, or that it failed."""
        outcomes: dict[Node, list[Any] | StoreError] = {}
        sending: dict[Node, list[Sequence[Arg]]] = {}
        for node, numbers in batches.items():
            try:
                if not trusting and not any(i in asked for i in numbers):
                    await self._ready(io, node)
            except StoreError as exc:
                outcomes[node] = exc
                continue
            commands = sending[node] = []
            for i in numbers:
                if i in asked:
                    commands.append(("ASKING",))
                commands.append(calls[i].command)
        for node, outcome in (await io.call(send, asend, sending)).items():
            if isinstance(outcome, list) and len(outcome) > len(batches[node]):
                outcome = [reply for reply, said in zip(outcome, sending[node], strict=True) if said != ("ASKING",)]
            outcomes[node] = outcome
        return outcomes

    def _suspect(self, node: Node) -> None:
        node.unsettle()
        self._stale = True

    async def command(self, io: IO, *args: Arg, once: bool = False) -> Any:
        """Run one command, whose first key is its first argument."""
        return replies_of(self, await self.run(io, [Routed(args[1], args)], once=once))[0]

    async def script(
        self, io: IO, script: Script, keys: Sequence[Arg], args: Sequence[Arg], *, once: bool = False
    ) -> Any:
        """Run *script* on the primary of its first key."""
        return (await self.evaluate(io, [(script, (keys, args))], once=once))[0][0]

    async def scripts(self, io: IO, script: Script, calls: Sequence[Call]) -> list[Any]:
        """Run *script* for each of *calls*, all primaries at once."""
        return (await self.evaluate(io, [(script, call) for call in calls]))[0]

    async def evaluate(
        self,
        io: IO,
        calls: Sequence[tuple[Script, Call]],
        *,
        besides: Sequence[Routed] = (),
        once: bool = False,
    ) -> tuple[list[Any], list[Any]]:
        """Run scripts, and commands *besides*, in one round trip to each primary.

        Returns the replies of both; errors among those of *besides*.

        Raises:
            StoreError: one of the scripts failed.
        """
        from redis.exceptions import NoScriptError

        routed = [Routed(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *args)) for script, (keys, args) in calls]
        replies = await self.run(io, [*routed, *besides], once=once)
        replies, others = replies[: len(calls)], replies[len(calls) :]
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            whole = []
            for i in missing:
                script, (keys, args) = calls[i]
                whole.append(Routed(keys[0], script.whole(keys, args)))
            again = await self.run(io, whole, once=once)
            for i, reply in zip(missing, again, strict=True):
                replies[i] = reply
        return replies_of(self, replies), others

    async def read(self, io: IO, names: Sequence[Name]) -> list[bytes | None]:
        """Return the values of *names*; the reads of one loop share round trips to each primary.

        None of them is older than what it means that a primary is new: the stamp of the namespace, read before that
        primary was settled, and the stamp of a tag, read there afterwards, would make an old value look current.
        """
        for _ in range(_READS):
            owners, settled = (await self._slots(io)).owners, self.settlings
            found = await self._read_once(io, names, owners)
            if self.settlings == settled:
                return found
        raise StoreUnavailable(f"{self!r}: its primaries changed {_READS} times while they were read")

    async def _read_once(self, io: IO, names: Sequence[Name], owners: Sequence[Node | None]) -> list[bytes | None]:
        places: dict[Node, list[int]] = {}
        for i, name in enumerate(names):
            owner = owners[slot_of(name)]
            if owner is not None and owner.settled:
                places.setdefault(owner, []).append(i)
        found: list[Any] = [_UNREAD] * len(names)
        batches = {node: [names[i] for i in numbers] for node, numbers in places.items()}
        for node, outcome in (await io.call(self._read_here, self._aread, batches)).items():
            if isinstance(outcome, StoreTimeout):
                self._suspect(node)
                raise outcome
            if isinstance(outcome, StoreError):
                self._suspect(node)
                continue
            for i, reply in zip(places[node], outcome, strict=True):
                found[i] = _UNREAD if isinstance(reply, Exception) else reply
        again = [i for i, reply in enumerate(found) if reply is _UNREAD]
        if again:  # slots that moved, servers that failed or are new
            replies = await self.run(io, [Routed(names[i], ("GET", names[i])) for i in again])
            for i, reply in zip(again, replies_of_gets(self, replies), strict=True):
                found[i] = reply
        return found

    def _read_here(self, batches: dict[Node, list[Name]]) -> dict[Node, list[Any] | StoreError]:
        return send({node: [("GET", name) for name in names] for node, names in batches.items()})

    async def _aread(self, batches: dict[Node, list[Name]]) -> dict[Node, list[Any] | StoreError]:
        if len(batches) == 1:
            [(node, names)] = batches.items()
            return {node: await outcome_of(self._reads[node].aread(names))}
        outcomes = await asyncio.gather(
            *(outcome_of(self._reads[node].aread(names)) for node, names in batches.items())
        )
        return dict(zip(batches, outcomes, strict=True))

    def settled(self, *, at_most: int) -> list[Node]:
        """Return the primaries that are in use now; none where there are more than *at_most*."""
        primaries = () if self._map is None else self._map.primaries
        return [node for node in primaries if node.settled] if len(primaries) <= at_most else []

    def ask_ahead(self, name: Arg, *args: Arg) -> Ahead | None:
        node = self.owner(name)
        return None if node is None else node.ask_ahead(args)

    def owner(self, key: Arg) -> Node | None:
        """Return the primary of *key*, as far as is known here."""
        return None if self._map is None else self._map.owners[slot_of(key)]

    async def sweep(self, io: IO, pattern: str) -> None:
        """Delete the keys that match *pattern*, on every primary."""
        for node in (await self._slots(io)).primaries:
            await self._ready(io, node)
            cursor: Any = b"0"
            while True:
                cursor, names = await io.call(node.run, node.arun, ("SCAN", cursor, "MATCH", pattern, "COUNT", _SWEEP))
                if names:
                    await self.run(io, [Routed(name, ("UNLINK", name)) for name in names])
                if cursor in (b"0", 0, "0"):
                    break

    async def scan(self, io: IO, pattern: str, cursor: bytes | None) -> tuple[bytes | None, list[bytes]]:
        """Return some of the keys that match *pattern*; the cursor says on which primary it goes on, and where."""
        place, _, inner = (cursor or b"0:0").partition(b":")
        at, primaries = int(place), (await self._slots(io)).primaries
        if at >= len(primaries):  # there are fewer of them by now
            return None, []
        await self._ready(io, node := primaries[at])
        asked = ("SCAN", inner, "MATCH", pattern, "COUNT", _SWEEP)
        following, names = await io.call(node.run, node.arun, asked)
        if following in (b"0", 0, "0"):
            at, following = at + 1, b"0"
        return (None if at >= len(primaries) else b"%d:%b" % (at, following)), names

    # -- listening ----------------------------------------------------------------------------------------------------

    def primaries(self) -> Sequence[Node]:
        """Return all primaries as they are now, from a thread that may block."""
        self._stale = True
        slots = drive(self._slots(BLOCKING))
        for node in slots.primaries:
            drive(self._ready(BLOCKING, node))
        return slots.primaries

    def gist(self, reply: Any) -> object:
        """Return who has which slots."""
        return tuple(sorted((first, last, bytes(primary[2])) for first, last, primary, *_ in reply))

    async def close(self, io: IO) -> None:
        """Close the blocking connections, and those of the running loop if there is one."""
        for node in self._nodes.values():
            node.close()
        await io.call(lambda: None, self._aclose)

    async def _aclose(self) -> None:
        for node in list(self._nodes.values()):
            await node.aclose()


class _Unread:
    pass


_UNREAD: Final = _Unread()


def replies_of_gets(link: object, replies: list[Any]) -> list[Any]:
    """Return *replies* to ``GET``; like ``MGET``, a value of another type counts as absent."""
    kept = [None if isinstance(reply, Exception) and "WRONGTYPE" in str(reply) else reply for reply in replies]
    return replies_of(link, kept)
