"""A WSGI application that counts the visits of each visitor in the session that the server in front gives it."""

import json
import os


def app(environ, start_response):
    body = b"{}"
    if environ["PATH_INFO"] == "/visit":
        session = environ["cachekit.session"]
        session["visits"] = session.get("visits", 0) + 1
        body = json.dumps({"visits": session["visits"], "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
