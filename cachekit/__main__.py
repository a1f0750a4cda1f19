"""``python -m cachekit``."""

from __future__ import annotations

import sys

from cachekit.cli import main

sys.exit(main())
