"""Fills a cache before the application takes traffic."""

from cachekit.warm.report import Failure, Report
from cachekit.warm.warmer import Warmer

__all__ = ["Failure", "Report", "Warmer"]
