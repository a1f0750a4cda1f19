"""A catalogue as a team would have it in production: pages over a database, functions that are slow.

What a page is made of it says with tags: its product, its category, its brand, and each product that a list shows. How long
pages may live, and where, is configuration (``cachekit.toml`` beside this file).
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TypedDict

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

import cachekit
from examples.catalogue import data

DATABASE = Path(os.environ.get("CATALOGUE_DATABASE", Path(__file__).parent / "catalogue.sqlite"))
MADE = os.environ.get("CATALOGUE_MADE", "")
"""A file to which each page that is made adds a line, so that it can be counted over all processes."""


class Product(TypedDict):
    """A product as its page shows it."""

    id: int
    name: str
    price: int
    category_id: int
    brand_id: int


def rows(sql: str, *values: object) -> list[sqlite3.Row]:
    """Ask the database."""
    with closing(sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(sql, values).fetchall()


@cachekit.cached(ttl="1d", tags=["product:{product_id}"])
def product(product_id: int) -> Product | None:
    """Return a product, None when there is none."""
    found = rows("SELECT * FROM product WHERE id = ?", product_id)
    return Product(**found[0]) if found else None  # type: ignore[typeddict-item]


@cachekit.cached(
    ttl="1d", tags=["category:{category_id}"], result_tags=lambda found: [f"product:{p['id']}" for p in found]
)
def cheapest(category_id: int) -> list[Product]:
    """Return the twenty cheapest products of a category."""
    found = rows("SELECT * FROM product WHERE category_id = ? ORDER BY price, id LIMIT 20", category_id)
    return [Product(**row) for row in found]  # type: ignore[typeddict-item]


def euros(cents: int) -> str:
    """Return *cents* as text."""
    return f"{cents // 100}.{cents % 100:02} EUR"


def page(request: Request, title: str, body: str) -> Response:
    """Return a page, and note that it was made."""
    if MADE:
        with Path(MADE).open("a") as made:
            made.write(f"{request.url.path}{'?' if request.url.query else ''}{request.url.query}\n")
    return HTMLResponse(f"<!doctype html><title>{title}</title><h1>{title}</h1>{body}")


def show_product(request: Request) -> Response:
    """Answer with the page of a product."""
    found = product(request.path_params["id"])
    if found is None:
        raise HTTPException(404)
    cachekit.tag(f"category:{found['category_id']}", f"brand:{found['brand_id']}")
    return page(request, found["name"], f"<p class=price>{euros(found['price'])}</p>")


def show_category(request: Request) -> Response:
    """Answer with the cheapest products of a category."""
    lines = "".join(f"<li>{p['name']}: {euros(p['price'])}</li>" for p in cheapest(request.path_params["id"]))
    return page(request, f"Category {request.path_params['id']}", f"<ol>{lines}</ol>")


def search(request: Request) -> Response:
    """Answer with the products whose name has a word."""
    words = request.query_params.get("q", "")
    found = rows("SELECT * FROM product WHERE name LIKE ? ORDER BY id LIMIT 20", f"%{words}%")
    lines = "".join(f"<li>{row['name']}: {euros(row['price'])}</li>" for row in found)
    return page(request, "Search", f"<ol>{lines}</ol>")


def style(_request: Request) -> Response:
    """Answer with the style sheet, whose name has its digest in it."""
    return PlainTextResponse(".price { font-weight: bold }", media_type="text/css")


data.build(DATABASE)
app = Starlette(
    routes=[
        Route("/products/{id:int}", show_product),
        Route("/categories/{id:int}", show_category),
        Route("/search", search),
        Route("/static/style.5d41402a.css", style),
    ]
)
