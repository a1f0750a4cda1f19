"""An ASGI application that counts the visits of each visitor in the session that the server in front gives it."""

import json
import os


async def app(scope, receive, send):
    assert scope["type"] == "http"
    session = scope["session"]
    if scope["path"] == "/visit":
        await session.load()
        session["visits"] = session.get("visits", 0) + 1
        body = json.dumps({"visits": session["visits"], "pid": os.getpid()}).encode()
    else:
        body = b"{}"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
