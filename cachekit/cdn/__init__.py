"""Purges of CDNs: what ``invalidate`` drops here is dropped there, and nothing is forgotten because a purge failed."""

from cachekit.cdn.base import HttpCall, Outcome, Purger, Rate, Reply, Scope, Target, Verdict
from cachekit.cdn.cloudflare import Cloudflare
from cachekit.cdn.fastly import Fastly
from cachekit.cdn.options import PurgeOptions, PurgeStatus
from cachekit.cdn.outbox import Outbox
from cachekit.cdn.varnish import Varnish

__all__ = [
    "Cloudflare", "Fastly", "HttpCall", "Outbox", "Outcome", "PurgeOptions", "PurgeStatus", "Purger", "Rate", "Reply",
    "Scope", "Target", "Varnish", "Verdict",
]  # fmt: skip
