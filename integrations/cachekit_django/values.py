"""What Django puts into a cache, beside plain values: model instances, query sets, responses, texts.

Data names classes only by words that are looked up in lists: the installed models, the responses of Django, the plain
types of installed applications, the types that the project allowed. Nothing is imported, called or unpickled because data
says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final

from django import http
from django.apps import apps
from django.db.models import Model, QuerySet
from django.db.models.base import ModelState
from django.db.models.fields.files import FieldFile
from django.db.models.query import ModelIterable
from django.db.models.utils import create_namedtuple_class
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.utils import translation
from django.utils.datastructures import MultiValueDict
from django.utils.functional import LazyObject, Promise, empty
from django.utils.module_loading import import_string
from django.utils.safestring import SafeString

from cachekit import ConfigError
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError
from cachekit_django.installed import InstalledTypes, NamedRow
from cachekit_django.rows import BEFORE, LEAVING

_RESPONSES: Final[dict[str, type[http.HttpResponse]]] = {
    cls.__name__: cls
    for cls in (
        http.HttpResponse, http.HttpResponseRedirect, http.HttpResponsePermanentRedirect, http.HttpResponseNotModified,
        http.HttpResponseBadRequest, http.HttpResponseForbidden, http.HttpResponseNotFound, http.HttpResponseGone,
        http.HttpResponseNotAllowed, http.HttpResponseServerError, http.JsonResponse, SimpleTemplateResponse,
        TemplateResponse,
    )
}  # fmt: skip
_NAMES: Final = {cls: name for name, cls in _RESPONSES.items()}
_LAZY: Final = ("gettext", "pgettext")
_OWN: Final = ("_state", "_prefetched_objects_cache", BEFORE, LEAVING)
_SKIPPED: Final = frozenset(
    {
        "_container", "_resource_closers", "cookies", "headers", "template_name", "context_data", "_request", "context",
        "_post_render_callbacks", "closed", "json", "templates", "wsgi_request", "asgi_request", "client", "request",
    }
)  # fmt: skip
_PLAIN: Final = (str, bytes, int, float, bool, type(None), list, dict, tuple)


class Allowed:
    """What *codec* takes beside plain values: what Django puts into a cache, and what is allowed by its name.

    What the codec has written before is read as ever.
    """

    def __init__(self, codec: MsgpackCodec) -> None:
        self._codec = codec
        self._named: dict[str, Any] = {}
        self._given: list[Any] = []
        codec.adapt(Model, "django.model", take=_take_model, build=_build_model)
        codec.adapt(_Inside, "django.inside", take=_take_inside, build=_build_model)
        codec.adapt(FieldFile, "django.file", take=_take_file, build=_build_file)
        codec.adapt(LazyObject, "django.object", take=lambda one: [_unwrapped(one)], build=lambda parts: parts[0])
        codec.adapt(NamedRow, "django.namedrow", take=_take_named_row, build=_build_named_row)
        codec.adapt(QuerySet, "django.queryset", take=_take_queryset, build=_build_queryset)
        codec.adapt(http.HttpResponse, "django.response", take=_take_response, build=_build_response)
        codec.adapt(SafeString, "django.safe", take=lambda text: [text + ""], build=lambda parts: SafeString(parts[0]))
        codec.adapt(Promise, "django.lazy", take=_take_lazy, build=_build_lazy)
        codec.adapt(MultiValueDict, "django.multivalue", take=_take_multi, build=lambda parts: MultiValueDict(parts[0]))
        codec.adapt(
            http.QueryDict,
            "django.query",
            take=lambda query: [query.urlencode()],
            build=lambda parts: http.QueryDict(parts[0]),
        )
        for kind in (FunctionType, BuiltinFunctionType, type):
            take, build = partial(_take_named, self._named), partial(_named, self._named)
            codec.adapt(kind, f"django.{kind.__name__}", take=take, build=build)

    def allow(self, types: Iterable[Any]) -> None:
        """Allow *types*, dotted paths or the things themselves.

        Those are dataclasses, enums, NamedTuples and pydantic models from outside INSTALLED_APPS; functions and other
        classes are kept by name. Raises ``ConfigError`` for what cannot be imported.
        """
        for given in types:
            if given in self._given:
                continue
            try:
                found = import_string(given) if isinstance(given, str) else given
            except ImportError as exc:
                raise ConfigError(f"TYPES: {given!r} cannot be imported: {exc}") from exc
            self._named[f"{found.__module__}:{found.__qualname__}"] = found
            self._given.append(given)
            if isinstance(found, type):
                try:
                    self._codec.register(found)
                except ConfigError:
                    continue  # kept by name only


def new_codec() -> MsgpackCodec:
    """Return a codec that takes the plain types of installed applications."""
    return MsgpackCodec(known=InstalledTypes())


def codec(types: Iterable[Any] = ()) -> MsgpackCodec:
    """Return a codec that takes what Django puts into a cache, and *types*. Raises ``ConfigError`` as ``allow`` does."""
    made = new_codec()
    Allowed(made).allow(types)
    return made


def _take_named(named: dict[str, Any], value: Any) -> list[Any]:
    name = f"{value.__module__}:{value.__qualname__}"
    if named.get(name) is not value:
        raise CodecError(f"{name} is not among OPTIONS['TYPES'] of this cache, so it is not kept", type_name=name)
    return [name]


def _named(named: dict[str, Any], parts: list[Any]) -> Any:
    return named[parts[0]]


class _Inside:
    """A row that is held by an attribute of another: what leads back from it is known as for a relation."""

    __slots__ = ("above", "instance")

    def __init__(self, instance: Any, above: tuple[Any, ...]) -> None:
        self.instance = instance
        self.above = above


def _take_inside(inside: _Inside) -> list[Any]:
    return _take_model(inside.instance, inside.above)


def _take_model(instance: Any, above: tuple[Any, ...] = ()) -> list[Any]:
    """Take the loaded fields (deferred ones stay deferred), loaded relations, prefetched objects and annotations.

    A relation that leads back to where it came from is left out: it is asked for again when it is used.
    """
    above = (*above, instance)
    state = instance._state

    def leads_on(one: Any) -> bool:
        return all(one is not upper for upper in above)

    def related(one: Any) -> Any:
        one = _unwrapped(one)
        if not leads_on(one):
            raise _LeadsBack(instance)
        return _take_model(one, above) if isinstance(one, Model) else None

    def held(value: Any) -> Any:
        if isinstance(value, FieldFile) and value.instance is instance:
            return value.name  # of which the attribute makes the file again
        if isinstance(value, Model):
            value = _unwrapped(value)
            if not leads_on(value):
                raise _LeadsBack(instance)
            return _Inside(value, above)
        if type(value) in (list, tuple) and any(isinstance(one, Model) for one in value):  # Prefetch(to_attr=...)
            kind: Any = type(value)
            return kind(held(one) for one in value)
        return value

    relations, prefetched = {}, {}
    for name, one in state.fields_cache.items():
        with suppress(_LeadsBack):
            relations[name] = related(one)
    for name, found in getattr(instance, "_prefetched_objects_cache", {}).items():
        with suppress(_LeadsBack):
            prefetched[name] = [related(one) for one in found]
    values = {name: held(value) for name, value in vars(instance).items() if name not in _OWN}
    return [instance._meta.label, state.db, state.adding, values, relations, prefetched]


class _LeadsBack(CodecError):
    """A row leads back to where it came from. What it is a relation of goes without it."""

    def __init__(self, instance: Any) -> None:
        name = f"{type(instance).__module__}.{type(instance).__qualname__}"
        super().__init__("a row that holds itself in an attribute cannot be kept", type_name=name)


def _build_model(parts: list[Any]) -> Any:
    label, db, adding, values, relations, prefetched = parts
    model: Any = apps.get_model(label)
    instance = model.__new__(model)
    instance._state = state = ModelState()
    state.db, state.adding = db, adding
    instance.__dict__.update(values)
    vars(state)["fields_cache"] = {name: one and _build_model(one) for name, one in relations.items()}
    if prefetched:
        instance._prefetched_objects_cache = {
            name: _filled(getattr(instance, name).get_queryset(), [_build_model(one) for one in found])
            for name, found in prefetched.items()
        }
    return instance


def _filled(queryset: Any, found: list[Any]) -> Any:
    queryset._result_cache = found
    queryset._prefetch_done = True
    return queryset


def _unwrapped(value: Any) -> Any:
    """Return what a lazy object, such as ``request.user``, stands for."""
    while issubclass(type(value), LazyObject):
        if value._wrapped is empty:
            value._setup()
        value = value._wrapped
    return value


def _take_file(file: Any) -> list[Any]:
    return [file.instance, file.field.name, file.name]


def _build_file(parts: list[Any]) -> Any:
    instance, field, name = parts
    vars(instance)[instance._meta.get_field(field).attname] = name
    return getattr(instance, field)


def _take_named_row(row: Any) -> list[Any]:
    return [list(row._fields), list(row)]


def _build_named_row(parts: list[Any]) -> Any:
    return create_namedtuple_class(*parts[0])._make(parts[1])


def _take_queryset(queryset: Any) -> list[Any]:
    """Evaluate it: what comes back holds the same objects. Asked for more, it asks for these rows by primary key."""
    if queryset._iterable_class is not ModelIterable:
        raise CodecError("a query set of values cannot be kept: cache list(queryset)", type_name="QuerySet")
    return [queryset.model._meta.label, queryset._db, list(queryset)]


def _build_queryset(parts: list[Any]) -> Any:
    label, db, found = parts
    model: Any = apps.get_model(label)
    rows = model._base_manager.using(db).filter(pk__in=[one.pk for one in found])
    return _filled(rows, found)


def _take_response(response: Any) -> list[Any]:
    if getattr(response, "is_rendered", True) is not True:
        raise CodecError("a response that is not rendered cannot be kept: call response.render() first")
    name = next(_NAMES[cls] for cls in type(response).__mro__ if cls in _NAMES)
    state = {key: value for key, value in vars(response).items() if key not in _SKIPPED and isinstance(value, _PLAIN)}
    cookies = [(key, morsel.value, morsel.coded_value, dict(morsel)) for key, morsel in response.cookies.items()]
    return [name, list(response.items()), response.content, cookies, state]


def _build_response(parts: list[Any]) -> Any:
    name, headers, content, cookies, state = parts
    cls = _RESPONSES[name]
    response: Any = cls.__new__(cls)
    http.HttpResponse.__init__(response)
    response.__dict__.update(state)
    response.headers = http.response.ResponseHeaders(headers)
    response._container = [content]
    for key, value, coded, attributes in cookies:
        response.cookies[key] = value
        response.cookies[key].set(key, value, coded)
        response.cookies[key].update(attributes)
    return response


def _take_lazy(text: Any) -> list[Any]:
    """Keep a translation as one, to be made when it is shown; any other lazy text as it reads now."""
    function, *rest = text.__reduce__()[1]
    name = getattr(function, "__name__", "")
    if name in _LAZY and getattr(translation, name) is function:
        return [name, list(rest[0])]
    return ["", [str(text)]]


def _build_lazy(parts: list[Any]) -> Any:
    name, arguments = parts
    return getattr(translation, f"{name}_lazy")(*arguments) if name in _LAZY else arguments[0]


def _take_multi(values: Any) -> list[Any]:
    return [dict(values.lists())]
