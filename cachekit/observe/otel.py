"""Observable instruments for OpenTelemetry: count nothing themselves, read a snapshot whenever a reader collects.

Thin: what is exported stands in ``series.py``. Needs the extra ``otel``, which is the API only; the application brings
an SDK and its exporter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider
except ImportError as exc:
    raise ImportError("cachekit.observe.otel needs the extra `otel`") from exc

from cachekit import __version__
from cachekit._fork import renew_in_child
from cachekit.observe.series import SERIES, Caches, Counted, Measure, Series, Unit
from cachekit.stats import Stats

PREFIX: Final = "cachekit."
_UNITS: Final = {Unit.NONE: "1", Unit.SECONDS: "s", Unit.BYTES: "By"}


class CacheInstruments:
    """Shows one cache or several through a meter.

    The instruments live as long as the meter provider: OpenTelemetry cannot take an instrument back. ``remove`` ends
    the samples of a cache.

    Args:
        caches: a cache, or caches by name.
        name: value of the attribute ``cachekit.name`` for a single cache.
        meter_provider: where the instruments are made; the global one when left out.

    Example:
        >>> from cachekit import Cache
        >>> instruments = CacheInstruments({"products": Cache()})
        >>> instruments.add("prices", Cache())
    """

    def __init__(
        self,
        caches: Counted | Mapping[str, Counted],
        *,
        name: str = "default",
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self.caches = Caches(caches, name=name)
        self._shared = _Shared(self.caches)
        provider = get_meter_provider() if meter_provider is None else meter_provider
        meter = provider.get_meter("cachekit", __version__)
        for series in SERIES:
            _create(meter, series, self._callback(series))

    def add(self, name: str, cache: Counted) -> None:
        """Show *cache* as *name* too. Raises ``ConfigError`` when *name* belongs to another cache."""
        self.caches.add(name, cache)

    def remove(self, name: str) -> None:
        """Show the cache called *name* no longer."""
        self.caches.remove(name)

    def _callback(self, series: Series) -> Callable[[CallbackOptions], Iterable[Observation]]:
        keys = tuple(PREFIX + label for label in ("name", *series.labels))

        def observe(_: CallbackOptions) -> list[Observation]:
            return [
                Observation(value, dict(zip(keys, (name, *labels), strict=True)))
                for name, stats in self._shared.snapshots(series.name).items()
                for labels, value in series.read(stats)
            ]

        return observe


class _Shared:
    """Lets the instruments of one collection read the same snapshots: each has a callback of its own."""

    def __init__(self, caches: Caches) -> None:
        self._caches = caches
        renew_in_child(self, _Shared._renew)
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._served: set[str] = set()
        self._snapshots: dict[str, Stats] = {}

    def snapshots(self, instrument: str) -> dict[str, Stats]:
        """Return the snapshots that *instrument* has not seen yet: its second question begins a new collection."""
        with self._lock:
            if not self._served or instrument in self._served:
                self._served.clear()
                self._snapshots = self._caches.snapshots()
            self._served.add(instrument)
            return self._snapshots


def _create(meter: Meter, series: Series, callback: Callable[[CallbackOptions], Iterable[Observation]]) -> None:
    make = {
        Measure.COUNTER: meter.create_observable_counter,
        Measure.LEVEL: meter.create_observable_up_down_counter,
        Measure.STATE: meter.create_observable_gauge,
    }[series.measure]
    make(PREFIX + series.name, [callback], unit=_UNITS[series.unit], description=series.help)


__all__ = ["CacheInstruments"]
