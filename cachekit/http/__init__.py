"""The HTTP cache: a shared cache by RFC 9111 in front of ASGI and WSGI applications.

The pure half says what may be stored and served: headers, directives, freshness, options, rules, message, storable,
status, recording, exchange, personal. The other half does it: port, collapse, driver, outside, and the edges asgi and wsgi.
"""
