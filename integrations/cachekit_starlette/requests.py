"""What an endpoint asks of the cache in front of it: the cache itself, and tags for its response."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from cachekit import Cache, ConfigError
from cachekit import tag as _tag
from cachekit.keys import TagTemplates
from cachekit_starlette.middleware import SCOPE


def get_cache(connection: HTTPConnection) -> Cache:
    """Return the cache of the ``CacheKit`` in front: ``cache: Annotated[Cache, Depends(get_cache)]`` in FastAPI.

    Raises:
        ConfigError: there is none.
    """
    found = connection.scope.get(SCOPE)
    if not isinstance(found, Cache):
        raise ConfigError(
            "get_cache: there is no cachekit in front: add Middleware(CacheKit, cache=...) to the application"
        )
    return found


def tag(connection: HTTPConnection, *templates: str) -> None:
    """Tag the response to a request, with templates over its path parameters: ``tag(request, "product:{number}")``.

    Raises:
        ConfigError: a template names no path parameter, or is no tag.
    """
    parameters = connection.path_params
    _tag(*TagTemplates(templates, tuple(parameters)).render(parameters))
