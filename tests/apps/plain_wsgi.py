"""A WSGI application in its plainest form. It counts what reaches it, and uses a cached function."""

import json

import cachekit

calls = 0


@cachekit.cached(ttl="5m", tags=["item:{name}"])
def item(name):
    return {"name": name}


def app(environ, start_response):
    global calls
    calls += 1
    if environ["REQUEST_METHOD"] == "POST":
        cachekit.cache.invalidate("item:" + environ["PATH_INFO"].rpartition("/")[2])
        start_response("204 No Content", [])
        return [b""]
    body = json.dumps({**item(environ["PATH_INFO"].rpartition("/")[2]), "calls": calls}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
