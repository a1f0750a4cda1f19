"""One round trip to several servers at once, in both worlds. Must not know why which command goes to which server."""

from __future__ import annotations

import asyncio
from typing import Any

from cachekit._io import IO
from cachekit.errors import StoreError
from cachekit.stores.node import Node, translate


async def ask_for_slots(io: IO, node: Node) -> Any:
    """Ask *node* for the map, be it a primary or not."""
    return await io.call(_slots_here, _aslots, node)


def _slots_here(node: Node) -> Any:
    connection = node.connection(redis_connect_func=None)
    try:
        connection.connect()
        connection.send_command("CLUSTER", "SLOTS", check_health=False)
        return connection.read_response()
    except Exception as exc:
        raise translate(exc, node) from exc
    finally:
        connection.disconnect()


async def _aslots(node: Node) -> Any:
    connection = node.aconnection(redis_connect_func=None)
    try:
        async with asyncio.timeout(node.dial.timeout):
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS", check_health=False)
            return await connection.read_response()
    except Exception as exc:
        raise translate(exc, node) from exc
    finally:
        await connection.disconnect(nowait=True)


def send(batches: dict[Node, list[Any]]) -> dict[Node, list[Any] | StoreError]:
    """Send every batch before waiting for the first reply."""
    sent: dict[Node, Any] = {}
    outcomes: dict[Node, list[Any] | StoreError] = {}
    for node, commands in batches.items():
        try:
            sent[node] = node.send(commands)
        except StoreError as exc:
            outcomes[node] = exc
    for node, lane in sent.items():
        try:
            outcomes[node] = node.receive(lane, len(batches[node]))
        except StoreError as exc:
            outcomes[node] = exc
    return outcomes


async def asend(batches: dict[Node, list[Any]]) -> dict[Node, list[Any] | StoreError]:
    if len(batches) == 1:
        [(node, commands)] = batches.items()
        return {node: await outcome_of(node.arun_all(commands))}
    outcomes = await asyncio.gather(*(outcome_of(node.arun_all(commands)) for node, commands in batches.items()))
    return dict(zip(batches, outcomes, strict=True))


async def outcome_of(job: Any) -> list[Any] | StoreError:
    try:
        replies: list[Any] = await job
    except StoreError as exc:
        return exc
    return replies
