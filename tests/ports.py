"""Ports for servers that tests start: outside of the range from which the system takes the ports of clients.

A port that the system picked and gave back may be a client's a moment later, and the server that was to have it fails.
"""

from __future__ import annotations

import os
import random
import socket
from itertools import count

_LOW, _HIGH = 15_000, 32_000
_offset = random.Random(os.getpid()).randrange(_HIGH - _LOW)  # runs beside each other begin at different places
_numbers = count()


def free_port() -> int:
    """Return a port that nothing listens on, each time another one."""
    while True:
        port = _LOW + (_offset + next(_numbers)) % (_HIGH - _LOW)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
