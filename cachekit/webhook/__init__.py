"""Events from outside that invalidate: signed deliveries, and the table that maps them to tags."""

from cachekit.webhook.mapping import Effect, Events, catalogue
from cachekit.webhook.receiver import Webhook
from cachekit.webhook.signature import GITHUB, STANDARD, STRIPE, Scheme, sign

__all__ = ["GITHUB", "STANDARD", "STRIPE", "Effect", "Events", "Scheme", "Webhook", "catalogue", "sign"]
