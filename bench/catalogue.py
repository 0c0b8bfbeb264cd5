"""What is crawled and delivered: products of about a kilobyte of JSON, and the pages that show them.

All is a pure function of a seed. The descriptions are real English, so that they compress as text does.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pydoc_data.topics import topics
from random import Random
from typing import Any

from demo.sites import prose

CATEGORIES = "Books Garden Kitchen Tools Music Toys Sports Outdoor Lighting Stationery".split()
SHORTEST_DESCRIPTION = 700


@dataclass(slots=True)
class Product:
    """One item, as spiders of this project declare them."""

    url: str
    sku: str
    title: str
    price: float
    currency: str
    in_stock: bool
    rating: float
    reviews: int
    category: str
    description: str


def products(number: int, *, first: int = 0, seed: int = 1) -> list[Product]:
    """Return ``number`` different products, the one at ``first`` being the first of them."""
    return [product(n, f"https://shop.example/p/{n}.html", seed) for n in range(first, first + number)]


def product(number: int, url: str, seed: int = 1) -> Product:
    """Return the product of this number, to be found at ``url``."""
    random = Random(seed * 1_000_003 + number)
    return Product(
        url=url,
        sku=random.randbytes(6).hex(),
        title=prose.title(random),
        price=random.randrange(100, 20000) / 100,
        currency="EUR",
        in_stock=random.random() < 0.8,
        rating=random.randrange(10, 51) / 10,
        reviews=random.randrange(2000),
        category=random.choice(CATEGORIES),
        description=_description(random),
    )


def html_page(shown: list[Product]) -> str:
    """Return a listing page; its links are relative to it."""
    pods = "\n".join(_pod(each) for each in shown)
    return f"""<!DOCTYPE html>
<html lang="en"><head><title>All products</title><link rel="stylesheet" href="/style.css"></head>
<body class="listing"><header><nav><ul>{_categories()}</ul></nav></header>
<main><h1>All products</h1><ol class="products">
{pods}
</ol></main><footer><p>Prices include tax.</p></footer></body></html>
"""


def json_page(shown: list[Product]) -> str:
    """Return a page of an API, with the products in it."""
    rows: list[dict[str, Any]] = [
        {
            "href": each.url,
            "sku": each.sku,
            "title": each.title,
            "price": {"amount": each.price, "currency": each.currency},
            "stock": int(each.in_stock),
            "rating": {"average": each.rating, "count": each.reviews},
            "category": each.category,
            "description": each.description,
        }
        for each in shown
    ]
    return json.dumps({"total": len(rows), "products": rows}, ensure_ascii=False)


def _pod(shown: Product) -> str:
    stock = "In stock" if shown.in_stock else "Sold out"
    return f"""<li><article class="product" data-sku="{shown.sku}">
  <div class="image"><a href="{shown.url}"><img src="/media/{shown.sku}.jpg" alt=""></a></div>
  <h3><a href="{shown.url}">{escape(shown.title)}</a></h3>
  <p class="price" data-currency="{shown.currency}">{shown.price:.2f}</p>
  <p class="stock">{stock}</p>
  <p class="rating"><b>{shown.rating}</b> of 5 (<span class="reviews">{shown.reviews}</span>)</p>
  <p class="category">{shown.category}</p>
  <p class="description">{escape(shown.description)}</p>
  <form><button type="submit" class="button button-primary">Add to basket</button></form>
</article></li>"""


def _categories() -> str:
    return "".join(f'<li><a href="/c/{name.lower()}/">{name}</a></li>' for name in CATEGORIES)


def _description(random: Random) -> str:
    chosen: list[str] = []
    while sum(map(len, chosen)) < SHORTEST_DESCRIPTION:
        chosen.append(random.choice(_sentences()))
    return " ".join(chosen)


@cache
def _sentences() -> tuple[str, ...]:
    """The sentences of Python's own reference: real text that every Python has."""
    text = re.sub(r"\s+", " ", " ".join(topics.values()))
    return tuple(re.findall(r"[A-Z][^.]{60,240}\.", text))
