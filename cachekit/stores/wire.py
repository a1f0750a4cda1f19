"""An open connection of the blocking world, spoken to without its layers: they cost more than the command.

The library opens it (sockets, TLS, authentication) and parses what comes; the first command goes through the library, and
later ones straight over its socket, where the C parser is installed. Must not know what the commands mean, nor lend or
bound anything: whoever uses a wire sees to its time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

Command: TypeAlias = Sequence[Any]

_CHUNK: Final = 65536


def _quick() -> tuple[Callable[[tuple[Any, ...]], bytes], object] | None:
    """Return how commands are packed in C, and what its parser returns for a reply that is not whole; None without."""
    try:
        from hiredis import pack_command
        from redis._parsers.hiredis import NOT_ENOUGH_DATA
    except ImportError:
        return None
    return pack_command, NOT_ENOUGH_DATA


class Wire:
    """A connection of the blocking world.

    Args:
        connection: of the client library, open or not.
    """

    __slots__ = ("_hear", "_tell", "connection")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._tell: Callable[[Command], None] | None = None
        self._hear: Callable[[], Any] | None = None

    def ask(self, command: Command) -> Any:
        """Return the reply to *command*. Raises what the client library raises, error replies too."""
        if self._tell is not None and self._hear is not None:
            self._tell(command)
            return self._hear()
        connection = self.connection
        connection.send_packed_command(connection.pack_command(*command), check_health=False)
        reply = connection.read_response()
        self._tell, self._hear = _straight(connection)
        return reply

    def tell(self, command: Command) -> bool:
        """Send *command*, whose reply ``hear`` awaits. Returns False, with nothing sent, where only ``ask`` can be used."""
        if self._tell is None:
            return False
        self._tell(command)
        return True

    def hear(self) -> Any:
        """Return the reply to what was told. Raises as ``ask`` does."""
        assert self._hear is not None
        return self._hear()


def _straight(connection: Any) -> tuple[Callable[[Command], None], Callable[[], Any]] | tuple[None, None]:
    """Return what sends over the socket of an open *connection* and what receives, or Nones where that cannot be."""
    from redis.exceptions import ConnectionError as Broken
    from redis.exceptions import TimeoutError as TimedOut

    parser: Any = getattr(connection, "_parser", None)
    reader: Any = getattr(parser, "_reader", None)
    sock: Any = getattr(connection, "_sock", None)
    quick = _quick()
    if quick is None or sock is None or not hasattr(reader, "feed"):
        return None, None
    pack, unfinished = quick
    send, receive, gets, feed = sock.sendall, sock.recv_into, reader.gets, reader.feed
    buffer = getattr(parser, "_buffer", None) or bytearray(_CHUNK)

    def tell(command: Command) -> None:
        try:
            send(pack(tuple(command)))
        except TimeoutError as exc:
            raise TimedOut("it cannot be sent in time") from exc
        except OSError as exc:
            raise Broken(f"the connection is broken: {exc}") from exc

    def hear() -> Any:
        try:
            while (reply := gets()) is unfinished:
                if not (count := receive(buffer)):
                    raise Broken("the server has closed the connection")
                feed(buffer, 0, count)
        except TimeoutError as exc:
            raise TimedOut("no answer in time") from exc
        except OSError as exc:
            raise Broken(f"the connection is broken: {exc}") from exc
        if isinstance(reply, Exception):
            raise reply
        return reply

    return tell, hear
