"""Help for tests: time that stands still, what a cache did, a store that fails as told, the contract of every store.

The fixtures of ``cachekit.pytest_plugin`` give a cache on such a clock.
"""

from cachekit._calls import Calls, calls
from cachekit.testing.contract import StoreContract
from cachekit.testing.doubles import EPOCH, FlakyStore, ManualClock, World

__all__ = ["EPOCH", "Calls", "FlakyStore", "ManualClock", "StoreContract", "World", "calls"]
