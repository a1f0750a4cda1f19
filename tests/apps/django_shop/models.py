from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cachekit_django import Invalidating, invalidates
from django.db import models


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
