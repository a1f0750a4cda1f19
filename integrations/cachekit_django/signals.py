"""Models and tags: a saved, deleted or re-related row drops what carries its tags, once its transaction commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar

from django.apps import apps
from django.db import models
from django.db.models import signals

from cachekit import ConfigError
from cachekit_django import queries, rows
from cachekit_django.commits import on_commit

M = TypeVar("M", bound=type[models.Model])


class invalidates:  # noqa: N801 - used as a decorator: `@invalidates("product:{pk}")`
    """Drop *tags* when a row of a model is saved or deleted, or its many-to-many relations change.

    Nothing is dropped before the transaction commits, and nothing at all when it rolls back. A row that moves from one
    tag to another drops both.

    Args:
        tags: templates over the fields of the row, such as ``"product:{pk}"`` or ``"category:{category_id}"``; or
            functions that receive the instance and return tags. They are also called with the row as it was before.

    Raises:
        ConfigError: no tag is given.
    """

    def __init__(self, *tags: str | Callable[[Any], Iterable[str]]) -> None:
        if not tags or not all(isinstance(tag, str) or callable(tag) for tag in tags):
            raise ConfigError(f'invalidates{tags!r} needs tags such as "product:{{pk}}", or functions of the instance')
        self._tags = tags

    def __call__(self, model: M) -> M:
        """Register *model*; call it like this for models that are not yours."""
        rows.add(model, self._tags)
        _hear(model)  # before the receivers of the project, which may load what is not committed
        if apps.models_ready:
            connect()
        return model

    @staticmethod
    def now(*found: Any, using: str | None = None) -> None:
        """Drop the tags of instances, or tags, when the transaction commits; for what sends no signals.

        Those are ``QuerySet.update``, ``bulk_create``, ``bulk_update`` and raw SQL; see also ``Invalidating``.
        """
        tags: dict[str, None] = {}
        for one in found:
            tags.update(dict.fromkeys([one] if isinstance(one, str) else rows.tags_of(one)))
        on_commit(tags, using)


def _saving(instance: Any, raw: bool = False, using: str | None = None, **_: Any) -> None:
    """Find out which tags the row has that *instance* will replace: afterwards nobody knows."""
    rows.find_before(instance, using, creates=rows.is_new(instance, raw=raw))
    vars(instance)[rows.LEAVING] = rows.tags_before(instance)


def _deleting(instance: Any, using: str | None = None, **_: Any) -> None:
    rows.find_before(instance, using, creates=False)
    vars(instance)[rows.LEAVING] = rows.tags_before(instance)


def _saved(instance: Any, using: str | None = None, created: bool = False, update_fields: Any = None, **_: Any) -> None:
    tags = [*vars(instance).pop(rows.LEAVING, ()), *rows.tags_of(instance)]
    moves = rows.watched(type(instance))
    on_commit(tags, using, rows.stored(instance, update_fields, created=created) if moves else None)


def _deleted(instance: Any, using: str | None = None, **_: Any) -> None:
    on_commit([*vars(instance).pop(rows.LEAVING, ()), *rows.tags_of(instance)], using)


def _related(
    sender: Any, instance: Any, action: str, model: Any, pk_set: Any, using: str | None = None, **_: Any
) -> None:
    if not (rows.sources(type(instance)) or rows.sources(model)):
        return
    if action == "pre_clear":  # afterwards nobody knows which rows it was
        others = list(_through(sender, instance, model, using))
    elif action.startswith("post_"):
        others = list(pk_set or ())
    else:
        return
    tags = rows.tags_of(instance)
    if others and rows.sources(model):
        for one in model._base_manager.using(using).filter(pk__in=others):
            tags += rows.tags_of(one)
    on_commit(tags, using)


def _through(sender: Any, instance: Any, model: Any, using: str | None) -> Iterable[Any]:
    for field in sender._meta.get_fields():
        if isinstance(field, models.ForeignKey) and isinstance(instance, field.related_model):
            for other in sender._meta.get_fields():
                if other is not field and isinstance(other, models.ForeignKey) and other.related_model is model:
                    found = sender._base_manager.using(using).filter(**{field.name: instance.pk})
                    return list(found.values_list(other.attname, flat=True))
    return ()


def connect() -> None:
    """Listen to the signals of the models that have tags, themselves or by inheritance."""
    for model in apps.get_models(include_auto_created=True):
        if not rows.sources(model):
            continue
        _hear(model)
        queries.cover(model)
        if rows.watched(model):
            signals.post_init.connect(rows.remember, sender=model, dispatch_uid="cachekit")
            signals.pre_save.connect(_saving, sender=model, dispatch_uid="cachekit")
            signals.pre_delete.connect(_deleting, sender=model, dispatch_uid="cachekit")
            _note_refreshing(model)


def _hear(model: type[models.Model]) -> None:
    signals.post_save.connect(_saved, sender=model, dispatch_uid="cachekit")
    signals.post_delete.connect(_deleted, sender=model, dispatch_uid="cachekit")
    signals.m2m_changed.connect(_related, dispatch_uid="cachekit")


def _note_refreshing(model: Any) -> None:
    """Have the rows of *model* remember what they are when they are loaded anew, of which no signal tells.

    Django loads a deferred field in this way, too, and the awaitable form calls this one.
    """
    own = model.refresh_from_db
    if getattr(own, "of_cachekit", False):
        return

    @wraps(own)
    def refresh_from_db(self: Any, *args: Any, **kwargs: Any) -> None:
        fields = kwargs.get("fields", args[1] if len(args) > 1 else None)
        own(self, *args, **kwargs)
        rows.reread(self, fields)

    refresh_from_db.of_cachekit = True  # type: ignore[attr-defined]
    model.refresh_from_db = refresh_from_db
