"""An ASGI application in its plainest form. It counts what reaches it."""

import json
import os

calls = 0


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    global calls
    calls += 1
    body = json.dumps({"path": scope["path"], "calls": calls, "pid": os.getpid()}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


def factory():
    return app


not_an_app = 42


def ambiguous(*args):
    return None
