"""Sessions that stand outside of the HTTP cache: what was made by looking at one is for one visitor all the same.

Owns what saves a wrong order of middleware, whoever made the sessions: their middleware says too far out that a response is
somebody's own. Must not know how sessions are kept.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp: TypeAlias = Callable[..., Awaitable[None]]
WsgiApp: TypeAlias = Callable[..., Iterable[bytes]]

_IN_SCOPE: Final = "session"
_IN_ENVIRON: Final = "cachekit.session"


def private_asgi(app: AsgiApp) -> AsgiApp:
    """Return *app*, whose responses say ``private`` where it looked at a ``scope["session"]`` that was there before."""

    def way(scope: Scope, receive: Any, send: Send) -> Awaitable[None]:
        session = scope.get(_IN_SCOPE)
        if session is None or scope["type"] != "http":
            return app(scope, receive, send)
        return _around(app, session, scope, receive, send)

    return way


async def _around(app: AsgiApp, session: object, scope: Scope, receive: Any, send: Send) -> None:
    held: MutableMapping[str, Any] | None = None

    async def relay(message: MutableMapping[str, Any]) -> None:
        nonlocal held
        if message["type"] == "http.response.start":  # with the first of the body the application may still look
            held = message
            return
        if held is not None:
            head, held = held, None
            await send(_private(head) if _looked_at(session) else head)
        await send(message)

    await app(scope, receive, relay)
    if held is not None:
        await send(held)


def _private(head: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    said = [(str(name, "latin-1"), str(value, "latin-1")) for name, value in head.get("headers", ())]
    fields = _dressed(said)
    return {**head, "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]}


def private_wsgi(app: WsgiApp) -> WsgiApp:
    """Return *app*, whose responses say ``private`` where it looked at a session that was there before."""

    def way(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        session = environ.get(_IN_ENVIRON)
        if session is None:
            return app(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            fields = _dressed(headers) if _looked_at(session) else headers
            return start_response(status, fields, *exc_info)

        return app(environ, start)

    return way


def _looked_at(session: object) -> bool:
    # A dictionary that does not say whether anybody looked: what is empty had nothing to tell.
    return bool(getattr(session, "accessed", session))


def _dressed(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    from cachekit.sessions.exchange import dressed  # only where there are sessions at all

    return dressed(headers, accessed=True, cookies=())
