from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cachekit_django import Invalidating, invalidates
from django.db import connection, models
from django.db.models.signals import post_save
from django.dispatch import receiver


@dataclass
class Money:
    cents: int


class Size(Enum):
    LARGE = "l"


class Place(NamedTuple):
    name: str
    at: tuple[int, int]


class Label(models.Model):
    name = models.CharField(max_length=20)


@invalidates("category:{pk}")
class Category(models.Model):
    name = models.CharField(max_length=20)


@invalidates("product:{pk}", "category:{category_id}", lambda product: [f"named:{product.name}"])
class Product(models.Model):
    name = models.CharField(max_length=20)
    price = models.DecimalField(max_digits=6, decimal_places=2, default=1)
    category = models.ForeignKey(Category, models.CASCADE, null=True)
    labels = models.ManyToManyField(Label)
    objects = Invalidating.as_manager()


class Twin(models.Model):
    other = models.OneToOneField("self", models.CASCADE, null=True, related_name="back")


class Shelf(models.Model):
    name = models.CharField(max_length=20)


@invalidates("book:{pk}", "shelf:{shelf_id}")
class Book(models.Model):
    title = models.CharField(max_length=20, unique=True)
    shelf = models.ForeignKey(Shelf, models.SET_NULL, null=True, related_name="books")
    cover = models.FileField(blank=True)
    objects = Invalidating.as_manager()


@invalidates(lambda note: [f"note:{note.pk}", f"shelf:{note.shelf.pk if note.shelf else None}"])
class Note(models.Model):
    text = models.CharField(max_length=20, default="")
    shelf = models.ForeignKey(Shelf, models.SET_NULL, null=True)


@invalidates(lambda sheet: [f"topic:{topic}" for topic in sheet.topics], "on:{pk}")
class Sheet(models.Model):
    topics = models.JSONField(default=list)
    scan = models.BinaryField(default=b"")
    proof = models.FileField(blank=True)


@invalidates("kind:{kind}")
class Item(models.Model):
    kind = models.CharField(max_length=20)


class Tool(Item):
    handle = models.CharField(max_length=20, default="")


@invalidates("guest:{guest}")
class Ticket(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    guest = models.CharField(max_length=20)
    hall = models.IntegerField(default=0)
    seat = models.IntegerField(null=True)
    number = models.IntegerField(null=True)

    class Meta:
        unique_together = [("hall", "seat")]
        constraints = [
            models.UniqueConstraint(fields=["hall", "number"], name="numbered"),
            models.UniqueConstraint(fields=["guest"], condition=models.Q(hall=9), name="some"),
        ]


class Pass(Ticket):
    until = models.DateField(null=True)


noted: list[int] = []


@receiver(post_save, sender=Note)
def note(**_):
    """A receiver of the project, which hears of a row as soon as Django has imported the models."""
    noted.append(len(connection.run_on_commit))
