"""What Flask puts around a job that runs behind a request: an application context of its own, with its teardown.

A job inherits the contexts of the request that it was started in, which goes on or ends beside it. What lies in ``g``, or is
kept by application context as sessions of Flask-SQLAlchemy are, is that request's and its thread's. ``request`` stays
readable. Must not know what a job does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from flask import current_app, has_app_context, has_request_context
from flask.globals import request_ctx

from cachekit.around import around_jobs


def register() -> None:
    """Put it around every job of this process: each finds its application by itself."""
    around_jobs("cachekit_flask", thread=_in_thread, task=_in_task)


@contextmanager
def _in_thread() -> Iterator[None]:
    app = _application()
    if app is None:
        yield
    else:
        with app.app_context():
            yield


@asynccontextmanager
async def _in_task() -> AsyncIterator[None]:
    with _in_thread():  # nothing is awaited: what teardown closes was opened in this thread
        yield


def _application() -> Any:
    """Return the application that the job was started in, or None outside of any."""
    if has_app_context():
        return current_app._get_current_object()  # type: ignore[attr-defined]
    return request_ctx.app if has_request_context() else None
