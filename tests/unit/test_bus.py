"""The thread that listens: what it says about losing its connections. The real ones are in ``contract``."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from cachekit.stores import bus as bus_module
from cachekit.stores.bus import Bus


class Story:
    """A link whose attempts to listen end as told, and what was said about them; the last one closes the bus."""

    def __init__(self, *attempts: str) -> None:
        self.attempts = list(attempts)
        self.said: list[str] = []
        self.over = threading.Event()
        self.bus: Bus | None = None

    def connect(self, bus: Bus) -> list[SimpleNamespace]:
        self.bus = bus
        self.now = self.attempts.pop(0) if self.attempts else "end"
        if self.now == "end":
            self.over.set()
            bus._stop.wait(30)
        if self.now != "heard":
            raise ConnectionError(self.now)
        return [SimpleNamespace(kind="tracking", close=lambda: None)]

    def hear(self, ears: list[SimpleNamespace]) -> None:
        raise ConnectionError("lost")


@pytest.mark.parametrize(
    ("attempts", "said"),
    [
        (["refused"], ["lost"]),
        (["refused", "refused", "refused"], ["lost"]),
        (["heard"], ["live", "lost"]),
        (["heard", "refused"], ["live", "lost"]),
        (["heard", "refused", "refused"], ["live", "lost"]),
        (["refused", "heard", "refused"], ["lost", "live", "lost"]),
        (["heard", "heard", "refused"], ["live", "lost", "live", "lost"]),
    ],
)
def test_a_loss_is_told_once(monkeypatch, attempts, said) -> None:
    story = Story(*attempts)
    monkeypatch.setattr(bus_module, "_PAUSES", (0.0,))
    monkeypatch.setattr(Bus, "_connect", lambda self: story.connect(self))
    monkeypatch.setattr(Bus, "_hear", lambda _, ears: story.hear(ears))
    bus = Bus(
        SimpleNamespace(), SimpleNamespace(),
        on_message=lambda _: None,
        on_live=lambda: story.said.append("live"),
        on_lost=lambda _: story.said.append("lost"),
    )  # fmt: skip
    assert story.over.wait(10)
    bus.close()
    assert story.said == said
