"""Between Django's requests and responses and what the edges speak: fields, environs, scopes. Must not decide anything."""

from __future__ import annotations

from contextvars import Context
from typing import Any, Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.functional import LazyObject, empty

from cachekit.http.headers import HeaderList
from cachekit.http.outside import private

_CONDITIONS: Final = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE", "HTTP_IF_RANGE")


def environ_of(request: HttpRequest) -> dict[str, Any] | None:
    """Return a copy of the WSGI environ of *request*, made up where it came by ASGI; None where it is not from a server."""
    meta: dict[str, Any] = request.META
    if "REQUEST_METHOD" not in meta or "SERVER_NAME" not in meta:
        return None
    environ = {"wsgi.url_scheme": request.scheme or "http", **meta}
    for name in ("PATH_INFO", "SCRIPT_NAME"):  # which Django decoded
        environ[name] = str(environ.get(name) or "").encode("utf-8", "replace").decode("latin-1")
    if not environ.get("HTTP_COOKIE", "-"):  # Django's test client sends it empty; a browser without cookies sends none
        del environ["HTTP_COOKIE"]
    return environ


def scope_of(request: HttpRequest) -> dict[str, Any] | None:
    """Return a copy of the ASGI scope of *request*, or None where it has none."""
    scope = getattr(request, "scope", None)
    if scope is None or scope.get("type") != "http":
        return None
    query = scope.get("query_string", b"")  # text, where Django's own test client made it
    headers = [field for field in scope["headers"] if field != (b"cookie", b"")]
    return {
        **scope,
        "query_string": query.encode("latin-1", "replace") if isinstance(query, str) else query,
        "headers": headers,
    }


def with_conditions(request: HttpRequest, given: dict[str, str]) -> None:
    """Give *request* the conditions and ranges of *given*, by their names in META, in place of its own."""
    for name in _CONDITIONS:
        request.META.pop(name, None)
    request.META.update({name: value for name, value in given.items() if name in _CONDITIONS})
    request.__dict__.pop("headers", None)  # cached by Django


def fields_of(response: HttpResponseBase) -> HeaderList:
    """Return the fields of *response*, its cookies among them."""
    cookies = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
    return [*((str(name), str(value)) for name, value in response.items()), *cookies]


def fields_for(request: HttpRequest, response: HttpResponseBase, outside: Any) -> HeaderList:
    """Return the fields of *response*: ``private`` where it was made with what is one visitor's, and is told further out.

    That is the session *outside*, of a middleware that stands before, and the token of a form whose cookie is still to be
    set: in the order that ``manage.py check`` asks for, both have been told by now.
    """
    fields = fields_of(response)
    told = settings.CSRF_COOKIE_NAME in response.cookies
    if getattr(outside, "accessed", False) or (request.META.get("CSRF_COOKIE_NEEDS_UPDATE") and not told):
        return private(fields)
    return fields


def knows(request: HttpRequest) -> bool:
    """Say whether somebody has looked who is asking, and it is a user: by whatever Django or a package found that out."""
    for name in ("user", "_acached_user"):
        user = request.__dict__.get(name)
        if isinstance(user, LazyObject) and user.__dict__.get("_wrapped", empty) is empty:
            continue  # nobody has looked
        if user is not None and getattr(user, "is_authenticated", True):
            return True
    return False


def with_fields(response: Any, fields: HeaderList) -> Any:
    """Return *response* with *fields* in place of its own; its cookies stay."""
    merged: dict[str, tuple[str, str]] = {}
    for name, value in fields:
        if (low := name.lower()) != "set-cookie":
            before = merged.get(low)
            merged[low] = (name, value) if before is None else (before[0], f"{before[1]}, {value}")
    for name in [name for name, _ in response.items() if name.lower() not in merged]:
        del response[name]
    for name, value in merged.values():
        if response.get(name) != value:
            response[name] = value
    return response


def response_of(status: int, reason: str, fields: HeaderList, body: bytes) -> HttpResponse:
    """Return a response with these parts."""
    response = HttpResponse(body, status=status, reason=reason or None)
    del response["Content-Type"]
    for name, value in fields:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
    return with_fields(response, fields)  # type: ignore[no-any-return]


def carry_over(inside: Context | None) -> None:
    """Set here what was set *inside*, such as the active language: the cache calls the rest of Django in a context apart."""
    for variable, value in () if inside is None else inside.items():
        if not variable.name.startswith("cachekit") and variable.get(_UNSET) is not value:
            variable.set(value)


_UNSET: Final = object()
