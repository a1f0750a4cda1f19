"""What happens when something is away or slow: refuse what needs it, go on with the rest, and say so.

``cachekit.degrade.asgi`` and ``cachekit.degrade.wsgi`` have ``Degradation`` and ``Guards``.
"""

from cachekit.degrade.gate import Counts, Route
from cachekit.degrade.health import Health, State
from cachekit.degrade.options import DegradeCounts, DegradeOptions

__all__ = ["Counts", "DegradeCounts", "DegradeOptions", "Health", "Route", "State"]
