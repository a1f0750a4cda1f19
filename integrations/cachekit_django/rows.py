"""The tags of a row, as it is now and as it was when the database last told or was told.

What a row was is remembered by its instance, as the values of the fields that its tags may follow from: once as it was
committed, and once as it was last loaded or saved, which a rollback may take back. Must not know signals or caches.
"""

from __future__ import annotations

import copy
import datetime as dt
import logging
import weakref
from collections.abc import Callable, Iterable
from decimal import Decimal
from string import Formatter
from types import NoneType
from typing import Any, Final, TypeAlias
from uuid import UUID

from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.base import ModelState
from django.db.models.fields.files import FieldFile

log = logging.getLogger("cachekit")

Source: TypeAlias = str | Callable[[Any], Iterable[str]]
State: TypeAlias = dict[str, Any]

BEFORE: Final = "_cachekit_before"
"""Attribute of an instance that holds what it was: as committed, and as last loaded or saved; empty for no row."""
LEAVING: Final = "_cachekit_leaving"
"""Attribute of an instance that holds the tags that it had, while it is saved or deleted."""

_NOTHING: Final = object()
_FIXED: Final = frozenset({
    NoneType, bool, int, float, complex, str, bytes, Decimal, UUID,
    dt.date, dt.datetime, dt.time, dt.timedelta,
})  # fmt: skip
"""Types whose values are what they are for good."""
_sources: dict[type[models.Model], tuple[Source, ...]] = {}
_watched: dict[type[models.Model], tuple[str, ...]] = {}


def add(model: type[models.Model], tags: tuple[Source, ...]) -> None:
    """Give the rows of *model*, and of what derives from it, *tags*."""
    _sources[model] = (*_sources.get(model, ()), *tags)
    _watched.clear()


def sources(model: type[Any]) -> tuple[Source, ...]:
    """Return where the tags of the rows of *model* come from; nothing where they have none."""
    return tuple(source for base in model.__mro__ if base in _sources for source in _sources[base])


def tags_of(instance: Any) -> list[str]:
    """Return the tags of *instance* as it is now; a template over a field that is not loaded gives none."""
    found: list[str] = []
    for source in sources(type(instance)):
        if not isinstance(source, str):
            found += source(instance)
        elif (tag := _filled(source, instance)) is not None:
            found.append(tag)
    return found


def _filled(template: str, instance: Any) -> str | None:
    made = ""
    for literal, name, _, _ in Formatter().parse(template):
        made += literal
        if name is None:
            continue
        head, *rest = (instance._meta.pk.attname if name == "pk" else name).split(".")
        if head not in vars(instance) and not rest and head in instance.get_deferred_fields():
            return None
        value = getattr(instance, head)
        for step in rest:
            value = getattr(value, step)
        if hasattr(value, "resolve_expression"):  # F("..."): the database knows what it is
            return None
        made += str(value)
    return made


def watched(model: type[Any]) -> tuple[str, ...]:
    """Return the fields whose change may change the tags of a row, and its primary key; none where only that counts."""
    if (found := _watched.get(model)) is None:
        found = _watched[model] = _watch(model)
    return found


def _watch(model: type[Any]) -> tuple[str, ...]:
    own: dict[str, str] = {}
    for field in model._meta.concrete_fields:
        own[field.name] = own[field.attname] = field.attname
    names: set[str] = set()
    for source in sources(model):
        heads = {""} if not isinstance(source, str) else {
            name.partition(".")[0] for _, name, _, _ in Formatter().parse(source) if name
        }  # fmt: skip
        for head in heads - {"pk"}:
            names |= {own[head]} if head in own else set(own.values())  # a function or property may follow any field
    key = model._meta.pk.attname
    return (key, *sorted(names - {key})) if names - {key} else ()


def state_of(instance: Any) -> State:
    """Return the values that the tags of *instance* may follow from, as far as they are loaded: as they are now."""
    values = vars(instance)
    return {
        name: value if type(value := values[name]) in _FIXED else _apart(value)
        for name in watched(type(instance))
        if name in values
    }


def _apart(value: Any) -> Any:
    """Return what stays the same when *value* is changed in place, and goes where its row goes."""
    if isinstance(value, memoryview):  # which nothing can copy
        return bytes(value)
    if isinstance(value, FieldFile):  # it holds the row, and is its name
        return value.name
    if hasattr(value, "resolve_expression"):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - open files and the like: a change in place is not seen
        return value


def remember(instance: Any, **_: Any) -> None:
    """Note what *instance* is, which was just loaded; the signal ``post_init``."""
    if instance._state.db is not None:  # made with a related row, which says where it will be: it was not loaded
        return
    state = state_of(instance)
    vars(instance)[BEFORE] = (state, state)


def reread(instance: Any, fields: Iterable[str] | None) -> None:
    """Note what *instance* is after its *fields* were loaded anew, all if None; a deferred one is thereby first known."""
    if not (before := vars(instance).get(BEFORE)):
        return
    loaded = state_of(instance)
    if fields is not None:
        chosen = {instance._meta.get_field(name).attname for name in fields if _is_field(instance, name)}
        loaded = {name: value for name, value in loaded.items() if name in chosen}
    committed, last = before
    vars(instance)[BEFORE] = ({**loaded, **committed}, {**last, **loaded})


def _is_field(instance: Any, name: str) -> bool:
    try:
        return hasattr(instance._meta.get_field(name), "attname")
    except FieldDoesNotExist:
        return False


def find_before(instance: Any, using: str | None, *, creates: bool) -> None:
    """Ask the database what the row is that *instance* will replace, where the instance does not know it.

    It knows when it was loaded from this database. It does not when it came from a cache, when it was made with the
    primary key of a row that is there, or was given one, and when a field was assigned that was never loaded. *creates*
    says that it can only be a new row.
    """
    values, names = vars(instance), watched(type(instance))
    if creates:
        values[BEFORE] = ()
        return
    before = values.get(BEFORE)
    told = instance._state
    if before and not told.adding and told.db is not None and told.db == using:
        last: State = before[1]
        key = names[0]
        if all(name in last for name in names if name in values) and _same(last.get(key), values.get(key)):
            return
    row = type(instance)._base_manager.using(using).filter(pk=instance.pk).first()
    state = _of_parents(instance, using) if row is None else state_of(row)
    values[BEFORE] = () if state is None else (state, state)


def _of_parents(instance: Any, using: str | None) -> State | None:
    """Return what *instance* is with the values of rows that it extends, where it has none of its own; None without any."""
    found: State = {}
    for parent, key in _parents(instance):
        row = parent._base_manager.using(using).filter(pk=key).first()
        if row is not None:
            own = {field.attname for field in parent._meta.concrete_fields}
            found |= {name: _apart(value) for name, value in vars(row).items() if name in own}
    if not found:
        return None
    return {**state_of(instance), **{name: found[name] for name in watched(type(instance)) if name in found}}


def _parents(instance: Any) -> Iterable[tuple[Any, Any]]:
    """Yield the models whose tables *instance* has a part of its row in, with the key there, as far as it has one."""
    for parent, link in instance._meta.concrete_model._meta.parents.items():
        if link is not None:
            values = vars(instance)  # what is not loaded is not asked for
            key = values.get(link.attname)
            key = values.get(parent._meta.pk.attname) if key is None else key
            if key is not None:
                yield parent, key


def tags_before(instance: Any) -> list[str]:
    """Return the tags that the row of *instance* has or had, those left out that follow from what has not changed."""
    found: list[str] = []
    before = vars(instance).get(BEFORE, ())
    for state in before[:1] if len(before) > 1 and before[0] is before[1] else before:
        if (was := _as_it_was(instance, state)) is None:
            continue
        try:
            found += tags_of(was)
        except Exception:
            log.warning(
                "the tags that %r had are not dropped: a tag of it failed for the row as it was", was, exc_info=True
            )
    return found


def _as_it_was(instance: Any, state: State) -> Any:
    """Return what *instance* was with *state*; None where that is what it is."""
    now = state_of(instance)
    names = watched(type(instance))
    changed = [name for name in names if not _same(state.get(name, _NOTHING), now.get(name, _NOTHING))]
    if not changed:
        return None
    cls: Any = type(instance)
    was: Any = cls.__new__(cls)
    vars(was).update({name: value for name, value in vars(instance).items() if name not in (BEFORE, LEAVING)})
    was._state = ModelState()
    was._state.db, was._state.adding = instance._state.db, False
    vars(was._state)["fields_cache"] = dict(instance._state.fields_cache)
    for name in changed:
        if name in state:
            setattr(was, name, state[name])  # which forgets the related row that is no longer meant
        else:
            del vars(was)[name]
    return was


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - arrays and the like: what cannot be compared may have changed
        return False


def stored(instance: Any, fields: Iterable[str] | None = None, *, created: bool = False) -> Callable[[], None]:
    """Note that *instance* was saved, its *fields* or all. Returns what is to be called when that is committed."""
    values, now = vars(instance), state_of(instance)
    before = values.get(BEFORE) or (now, now)
    if fields is not None and not created:
        chosen = {instance._meta.get_field(name).attname for name in fields if _is_field(instance, name)}
        now = {**before[1], **{name: value for name, value in now.items() if name in chosen}}
    values[BEFORE] = (now if created else before[0], now)
    known = weakref.ref(instance)  # a transaction that saves many rows need not hold all of them

    def settle() -> None:
        if (one := known()) is not None and vars(one).get(BEFORE):
            vars(one)[BEFORE] = (now, vars(one)[BEFORE][1])

    return settle


def is_new(instance: Any, *, raw: bool) -> bool:
    """Say whether saving *instance* can only create a row, as far as Django itself decides so."""
    if not instance._state.adding:
        return False
    if instance.pk is None:
        return all(_made_up(parent._meta.pk) for parent, _ in _parents(instance))
    return _made_up(instance._meta.pk) and not raw


def _made_up(key: Any) -> bool:
    return bool(key.has_default() or (hasattr(key, "has_db_default") and key.has_db_default()))
