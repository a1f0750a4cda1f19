"""A catalogue of products in SQLite, generated from a seed: no real shop, and the same one on each machine."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

SEED = 20260101
BRANDS = ["Aldine", "Borel", "Castor", "Dorna", "Elbrus", "Fermi", "Galena", "Hadley"]
KINDS = ["Lamp", "Kettle", "Chair", "Desk", "Clock", "Shelf", "Mug", "Rug", "Mirror", "Bench"]
ADJECTIVES = ["Oak", "Steel", "Linen", "Copper", "Slate", "Cork", "Ash", "Brass"]


def build(path: Path, products: int = 5_000) -> Path:
    """Write a catalogue with *products* products to *path* unless there is one."""
    if path.exists():
        return path
    rng = random.Random(SEED)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial)) as connection, connection:
        connection.execute("CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        connection.execute("CREATE TABLE brand (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        connection.execute(
            "CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL,"
            " category_id INTEGER NOT NULL, brand_id INTEGER NOT NULL)"
        )
        connection.executemany("INSERT INTO category VALUES (?, ?)", enumerate(KINDS, 1))
        connection.executemany("INSERT INTO brand VALUES (?, ?)", enumerate(BRANDS, 1))
        rows = []
        for number in range(1, products + 1):
            category, brand = rng.randrange(len(KINDS)), rng.randrange(len(BRANDS))
            name = f"{BRANDS[brand]} {rng.choice(ADJECTIVES)} {KINDS[category]} {number}"
            rows.append((number, name, rng.randrange(499, 99_900, 100), category + 1, brand + 1))
        connection.executemany("INSERT INTO product VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("CREATE INDEX by_category ON product (category_id, price)")
    partial.rename(path)
    return path


def set_price(path: Path, product: int, cents: int) -> None:
    """Change a price in the database, as the shop's back office does; no cache hears of it."""
    with closing(sqlite3.connect(path, timeout=10)) as connection, connection:
        connection.execute("UPDATE product SET price = ? WHERE id = ?", (cents, product))
