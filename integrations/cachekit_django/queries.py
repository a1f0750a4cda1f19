"""Changes of many rows at once, of which no signal tells: ``objects = Invalidating.as_manager()``.

Must not know when tags are dropped, nor how a row remembers what it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any, Final

from django.db import models
from django.db.models import Q
from django.db.models.options import Options
from django.db.models.query import ModelIterable
from django.utils.functional import cached_property

from cachekit_django import rows
from cachekit_django.commits import on_commit

_AT_ONCE: Final = 100
"""Rows that are looked for by one query: databases bound what one may hold."""


class Invalidating(models.QuerySet[Any]):
    """A query set whose bulk operations drop the tags of the rows: ``objects = Invalidating.as_manager()``.

    ``update``, ``bulk_update`` and ``bulk_create(update_conflicts=True)`` read the rows before they change them.
    """

    def update(self, **kwargs: Any) -> int:
        """Update the rows, and drop the tags that they had and have."""
        self._for_write = True  # what is about to change is read where it is changed
        before = self._whole_rows()
        changed = super().update(**kwargs)
        self._changed(before)
        return changed

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self, objs: Iterable[Any], batch_size: int | None = None, ignore_conflicts: bool = False,
        update_conflicts: bool = False, update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Any]:  # fmt: skip
        """Create the rows, or update those that are there already, and drop their tags."""
        given = list(objs)
        self._for_write = True
        before = list(self._conflicting(given, unique_fields)) if update_conflicts else []
        made = super().bulk_create(
            given, batch_size, ignore_conflicts, update_conflicts,
            update_fields, unique_fields,
        )  # fmt: skip
        settle = [rows.stored(one, created=True) for one in made] if rows.watched(self.model) else []
        self._changed(before, made, settle)
        return made

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], batch_size: int | None = None) -> int:
        """Update the rows, and drop the tags that they had and have."""
        given, names = list(objs), list(fields)
        self._for_write = True
        before = list(self._base().filter(pk__in=[one.pk for one in given]))
        changed = super().bulk_update(given, names, batch_size)
        settle = [rows.stored(one, names) for one in given] if rows.watched(self.model) else []
        self._changed(before, given, settle)
        return changed

    def _base(self) -> Any:
        return self.model._base_manager.using(self.db)

    def _whole_rows(self) -> list[Any]:
        """Read the rows with all their fields, whatever this query set gives of them."""
        if self._iterable_class is ModelIterable:
            return list(self.defer(None))
        keys = self.order_by().values_list("pk", flat=True)
        return list(self._base().filter(pk__in=list(keys)))

    def _changed(self, before: Sequence[Any], now: Sequence[Any] = (), settle: Sequence[Any] = ()) -> None:
        """Drop the tags of rows as they were *before* and are *now*, and as the database has them."""
        after: Iterable[Any] = ()
        if before and not now and rows.watched(self.model):
            after = self._base().filter(pk__in=[row.pk for row in before])
        tags = [tag for row in (*before, *now, *after) for tag in rows.tags_of(row)]

        def then() -> None:
            for each in settle:
                each()

        on_commit(tags, self.db, then if settle else None)

    def _conflicting(self, given: list[Any], unique_fields: Collection[str] | None) -> Iterator[Any]:
        """Find the rows that *given* would replace: those that have the same values where they must be unique."""
        for names in [list(unique_fields)] if unique_fields else _unique(self.model):
            fields: list[Any] = [
                self.model._meta.pk if name == "pk" else self.model._meta.get_field(name) for name in names
            ]
            same = [{field.attname: getattr(one, field.attname) for field in fields} for one in given]
            wanted = [Q(**values) for values in same if None not in values.values()]
            for first in range(0, len(wanted), _AT_ONCE):
                yield from self._base().filter(reduce(or_, wanted[first : first + _AT_ONCE]))


def _unique(model: type[models.Model]) -> Iterator[Sequence[str]]:
    """Yield the fields that together must be unique, as databases find out which are not told."""
    opts = model._meta
    yield from ([field.name] for field in opts.concrete_fields if field.unique)
    yield from opts.unique_together
    yield from (constraint.fields for constraint in opts.total_unique_constraints)


class _Covered(Options):  # type: ignore[type-arg]
    """What Django knows of a model, with a base manager that is Invalidating where Django would make a plain one.

    A property, because Django makes it anew whenever classes of models come or go.
    """

    @cached_property
    def base_manager(self) -> Any:
        found: Any = Options.base_manager.func(self)  # type: ignore[attr-defined]
        if type(found) is not models.Manager or found.name != "_base_manager":
            return found  # which Meta names
        made: Any = models.Manager.from_queryset(Invalidating)()
        made.name, made.model, made.auto_created = found.name, found.model, True
        return made


def cover(model: type[models.Model]) -> None:
    """Have what Django itself changes through the base manager drop tags, too, where the model names no other.

    That is what ``category.products.add(product)`` and SET_NULL do. It is no manager of the model's: migrations see none.
    """
    known: Any = model._meta
    if type(known) is Options:
        known.__class__ = _Covered
        vars(known).pop("base_manager", None)


def uncovered() -> Iterator[type[models.Model]]:
    """Yield the models whose own manager drops tags and whose base manager, which Meta names, does not."""
    from django.apps import apps

    for model in apps.get_models():
        if not rows.sources(model) or isinstance(model._base_manager.get_queryset(), Invalidating):
            continue
        if isinstance(model._default_manager.get_queryset(), Invalidating):
            yield model
