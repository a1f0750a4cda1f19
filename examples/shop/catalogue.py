"""What the shop sells: a short list, made up for this example."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """One thing to buy; its price in pence."""

    sku: str
    name: str
    price: int
    about: str


PRODUCTS = {
    product.sku: product
    for product in (
        Product("kettle", "Enamel kettle", 3490, "2 litres, whistles"),
        Product("teapot", "Stoneware teapot", 2850, "Four cups, with a strainer"),
        Product("mugs", "Set of four mugs", 2200, "Dishwasher-safe, 350 ml"),
        Product("grinder", "Hand coffee grinder", 4900, "Steel burrs, 18 settings"),
        Product("press", "Coffee press", 3150, "One litre, double wall"),
        Product("scale", "Kitchen scale", 2700, "Up to 5 kg, by the gram"),
        Product("board", "Beech board", 1980, "40 by 28 cm, oiled"),
        Product("knife", "Vegetable knife", 1650, "9 cm, carbon steel"),
        Product("pan", "Cast-iron pan", 5400, "26 cm, seasoned"),
        Product("towels", "Linen towels", 1890, "Three, 50 by 70 cm"),
        Product("jar", "Storage jar", 890, "One litre, with a clip"),
        Product("timer", "Kitchen timer", 1290, "Mechanical, 60 minutes"),
    )
}


def price(pence: int) -> str:
    """Return an amount for a reader."""
    return f"£{pence / 100:,.2f}"
