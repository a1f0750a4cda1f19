"""Several processes, each played by an outbox of its own, and a CDN that fails at random: nothing is forgotten."""

from __future__ import annotations

import random
import threading
import time

import pytest

from cachekit import Cloudflare, PurgeOptions
from cachekit._io import BLOCKING, drive
from cachekit.cdn import Outbox
from cachekit.cdn.box import ServerBox
from cachekit.cdn.client import Client
from cachekit.stores.link import RedisLink
from tests.cdn.stand_in import Answer, StandIn

pytestmark = pytest.mark.server


class Moody(list):
    """A script that goes on for ever: half of the answers are of some wrong kind. It notes what was confirmed, and when."""

    KINDS = [
        Answer(500), Answer(429, {"success": False}, {"Retry-After": "0"}), Answer(200, b"garbage"), Answer(act="reset"),
        Answer(400, {"success": False}), Answer(act="nonsense"),
    ]  # fmt: skip

    def __init__(self, cdn: StandIn, seed: int) -> None:
        self.cdn, self.rng, self.kind = cdn, random.Random(seed), True
        self.confirmed: dict[str, float] = {}

    def __bool__(self) -> bool:
        return True

    def pop(self, _: int) -> Answer:
        now = time.monotonic()
        if self.kind and self.rng.random() < 0.5:
            return self.rng.choice(self.KINDS)
        self.confirmed.update(dict.fromkeys(self.cdn.seen[-1].json["tags"], now))
        return Answer(200, {"success": True})


@pytest.mark.parametrize("seed", range(3))
def test_every_invalidation_is_followed_by_a_purge(valkey, seed: int) -> None:
    with valkey.client() as client:
        client.flushall()
    cdn = StandIn(Answer(500))
    cdn.script = mood = Moody(cdn, seed)
    options = PurgeOptions(delay=0, rebound=0, first_pause="1ms", longest_pause="2ms")
    links = [RedisLink(valkey.url, timeout=5) for _ in range(3)]
    outboxes = [
        Outbox(
            [Cloudflare(zone="z", token="t", base_url=cdn.url, plan="enterprise")], box=ServerBox(link, "many"),
            options=options, client=Client(timeout=5), background=False,
        )
        for link in links
    ]  # fmt: skip
    put: dict[str, float] = {}
    over = threading.Event()
    errors: list[BaseException] = []

    def deliver(outbox: Outbox) -> None:
        try:
            while not over.is_set():
                drive(outbox.deliver(BLOCKING))
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=deliver, args=(outbox,)) for outbox in outboxes]
    for thread in threads:
        thread.start()
    rng = random.Random(seed + 100)
    for _ in range(150):
        tag = f"product:{rng.randrange(12)}"
        put[tag] = time.monotonic()
        drive(rng.choice(outboxes).put(BLOCKING, [tag]))
    mood.kind = False
    deadline = time.monotonic() + 30
    while drive(outboxes[0].status(BLOCKING))["cloudflare-z"].pending and not errors:
        assert time.monotonic() < deadline, drive(outboxes[0].status(BLOCKING))
        time.sleep(0.005)
    over.set()
    for thread in threads:
        thread.join(15)
    for link in links:
        drive(link.close(BLOCKING))
    cdn.close()
    assert errors == []
    assert {tag for tag, when in put.items() if mood.confirmed.get(tag, 0.0) < when} == set()
