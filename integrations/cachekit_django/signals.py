"""Models and tags: a saved, deleted or re-related row drops what carries its tags, once its transaction commits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from string import Formatter
from typing import Any, Final, TypeVar

from django.apps import apps
from django.db import models
from django.db.models import signals

from cachekit import ConfigError
from cachekit_django.commits import on_commit

M = TypeVar("M", bound=type[models.Model])
BEFORE: Final = "_cachekit_tags_before"
"""Attribute of an instance that holds the tags which it had when it was loaded."""

_sources: dict[type[models.Model], tuple[str | Callable[[Any], Iterable[str]], ...]] = {}


class invalidates:  # noqa: N801 - used as a decorator: `@invalidates("product:{pk}")`
    """Drop *tags* when a row of a model is saved or deleted, or its many-to-many relations change.

    Nothing is dropped before the transaction commits, and nothing at all when it rolls back. A row that moves from one
    tag to another drops both.

    Args:
        tags: templates over the fields of the row, such as ``"product:{pk}"`` or ``"category:{category_id}"``; or
            functions that receive the instance and return tags.

    Raises:
        ConfigError: no tag is given.
    """

    def __init__(self, *tags: str | Callable[[Any], Iterable[str]]) -> None:
        if not tags or not all(isinstance(tag, str) or callable(tag) for tag in tags):
            raise ConfigError(f'invalidates{tags!r} needs tags such as "product:{{pk}}", or functions of the instance')
        self._tags = tags

    def __call__(self, model: M) -> M:
        """Register *model*; call it like this for models that are not yours."""
        _sources[model] = (*_sources.get(model, ()), *self._tags)
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
            tags.update(dict.fromkeys([one] if isinstance(one, str) else tags_of(one)))
        on_commit(tags, using)


def tags_of(instance: Any) -> list[str]:
    """Return the tags of *instance* as it is now; a template over a field that is not loaded gives none."""
    found: list[str] = []
    for source in _of(type(instance)):
        if not isinstance(source, str):
            found += source(instance)
        elif (tag := _filled(source, instance)) is not None:
            found.append(tag)
    return found


def _of(model: type[Any]) -> tuple[Any, ...]:
    return tuple(source for base in model.__mro__ if base in _sources for source in _sources[base])


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
        made += str(value)
    return made


def _moves(model: type[Any]) -> list[str]:
    """Return the templates of *model* whose tags may change with a save."""
    return [source for source in _of(model) if isinstance(source, str) and _fields(source) - {"pk", ""}]


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name and "." not in name}


def _remember(instance: Any, **_: Any) -> None:
    before = [tag for one in _moves(type(instance)) if (tag := _filled(one, instance)) is not None]
    instance.__dict__[BEFORE] = before


def _saved(instance: Any, using: str | None = None, **_: Any) -> None:
    on_commit([*instance.__dict__.get(BEFORE, ()), *tags_of(instance)], using)
    if BEFORE in instance.__dict__:
        _remember(instance)


def _related(
    sender: Any, instance: Any, action: str, model: Any, pk_set: Any, using: str | None = None, **_: Any
) -> None:
    if not (_of(type(instance)) or _of(model)):
        return
    if action == "pre_clear":  # afterwards nobody knows which rows it was
        others = list(_through(sender, instance, model, using))
    elif action.startswith("post_"):
        others = list(pk_set or ())
    else:
        return
    tags = tags_of(instance)
    if others and _of(model):
        for one in model._default_manager.using(using).filter(pk__in=others):
            tags += tags_of(one)
    on_commit(tags, using)


def _through(sender: Any, instance: Any, model: Any, using: str | None) -> Iterable[Any]:
    for field in sender._meta.get_fields():
        if isinstance(field, models.ForeignKey) and isinstance(instance, field.related_model):
            for other in sender._meta.get_fields():
                if other is not field and isinstance(other, models.ForeignKey) and other.related_model is model:
                    rows = sender._default_manager.using(using).filter(**{field.name: instance.pk})
                    return list(rows.values_list(other.attname, flat=True))
    return ()


def connect() -> None:
    """Listen to the signals of the models that have tags, themselves or by inheritance."""
    for model in apps.get_models(include_auto_created=True):
        _listen(model)
    signals.m2m_changed.connect(_related, dispatch_uid="cachekit")


def _listen(model: type[models.Model]) -> None:
    if not _of(model):
        return
    if _moves(model):
        signals.post_init.connect(_remember, sender=model, dispatch_uid="cachekit")
    signals.post_save.connect(_saved, sender=model, dispatch_uid="cachekit")
    signals.post_delete.connect(_saved, sender=model, dispatch_uid="cachekit")


class Invalidating(models.QuerySet[Any]):
    """A query set whose bulk operations drop the tags of the rows: ``objects = Invalidating.as_manager()``.

    ``update`` and ``bulk_update`` read the rows before they change them, one query more.
    """

    def update(self, **kwargs: Any) -> int:
        """Update the rows, and drop the tags that they had and have."""
        rows = list(self.all())
        changed = super().update(**kwargs)
        keys = [row.pk for row in rows]
        after = self.model._base_manager.using(self.db).filter(pk__in=keys) if _moves(self.model) else ()
        invalidates.now(*rows, *after, using=self.db)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Create the rows, and drop their tags."""
        made = super().bulk_create(objs, *args, **kwargs)
        invalidates.now(*made, using=self.db)
        return made

    def bulk_update(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> int:
        """Update the rows, and drop the tags that they had and have."""
        rows = list(objs)
        before = list(self.model._base_manager.using(self.db).filter(pk__in=[row.pk for row in rows]))
        changed = super().bulk_update(rows, *args, **kwargs)
        invalidates.now(*before, *rows, using=self.db)
        return changed
