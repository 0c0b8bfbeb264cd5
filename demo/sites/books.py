"""The local copy of books.toscrape.com: listing pages, their pagination, a page for each book."""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from random import Random

from demo.sites import prose
from demo.sites.page import Page, text_page
from demo.sites.revision import FIRST, Revision, last_changes

BOOKS_PER_LISTING = 20
WORDS_OF_RATING = ("One", "Two", "Three", "Four", "Five")
CATEGORIES = (
    "Travel Mystery Classics Romance Fiction Childrens Religion Nonfiction Music Default Sports "
    "Fantasy Poetry Parenting History Thriller Art Psychology Autobiography Humor Business "
    "Philosophy Biography Health Politics Science Horror Suspense Crime Novels Cultural "
    "Spirituality Academic Paranormal Adventure Sequential Historical Contemporary Young-Adult"
).split()
NOT_DESCRIBED = 0.01
"""The share of books without a description: a handful of a thousand."""

HEAD = """<!DOCTYPE html>
<html lang="en-us" class="no-js">
    <head>
        <title>
    {title} | Books to Scrape - Sandbox
</title>
        <meta http-equiv="content-type" content="text/html; charset=UTF-8" />
        <meta name="created" content="24th Jun 2016 09:29" />
        <meta name="description" content="" />
        <link rel="shortcut icon" href="{root}static/oscar/favicon.ico" />
        <link rel="stylesheet" type="text/css" href="{root}static/oscar/css/styles.css" />
    </head>
    <body id="default" class="default">
        <header class="header container-fluid"><div class="page_inner"><div class="row">
            <div class="col-sm-8 h1"><a href="{root}index.html">Books to Scrape</a><small>
            We love being scraped!</small></div>
        </div></div></header>
        <div class="container-fluid page"><div class="page_inner">
"""
FOOT = """
        </div></div>
        <footer class="footer container-fluid"></footer>
        <script type="text/javascript" src="{root}static/oscar/js/oscar/ui.js"></script>
    </body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Book:
    """What never changes about a book, and its price in pence and stock at one revision."""

    slug: str
    title: str
    upc: str
    category: int
    rating: int
    description: str | None
    image: str
    pence: int
    stock: int

    @property
    def price(self) -> str:
        return f"£{self.pence // 100}.{self.pence % 100:02d}"


@lru_cache(maxsize=4096)
def book(seed: int, number: int, last_change: int) -> Book:
    """Given a book's place in the catalogue and when it last changed, return the book."""
    random = Random(f"{seed}:book:{number}")
    title = prose.title(random)
    ascii_title = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "-", ascii_title.lower()).strip("-") or "book"
    described = random.random() >= NOT_DESCRIBED
    digest = random.randbytes(16).hex()
    return Book(
        slug=f"{words}_{number + 1}",
        title=title,
        upc=random.randbytes(8).hex(),
        category=random.randrange(len(CATEGORIES)),
        rating=random.randint(1, 5),
        description=prose.paragraph(random, random.randint(5, 18)) if described else None,
        image=f"media/cache/{digest[:2]}/{digest[2:4]}/{digest}.jpg",
        # 137 shares no factor with 5000, so the price differs from that of every other revision.
        pence=1000 + (random.randrange(5000) + 137 * last_change) % 5000,
        stock=random.randint(1, 22),
    )


class BooksSite:
    """``count`` books, twenty to a listing page."""

    name = "books"
    base_path = ""

    def __init__(self, seed: int, count: int) -> None:
        self.seed = seed
        self.count = count
        self.listings = -(-count // BOOKS_PER_LISTING)
        self._numbers = {book(seed, number, 1).slug: number for number in range(count)}

    def page(self, path: str, revision: Revision) -> Page | None:
        """Given a path, return the listing or the book there. The real site has no robots.txt."""
        if path in ("/", "/index.html"):
            return self._listing(1, "", revision)
        listing = re.fullmatch(r"/catalogue/page-(\d+)\.html", path)
        if listing and 1 <= int(listing[1]) <= self.listings:
            return self._listing(int(listing[1]), "../", revision)
        detail = re.fullmatch(r"/catalogue/([^/]+)/index\.html", path)
        if detail and detail[1] in self._numbers:
            return self._detail(self._numbers[detail[1]], revision)
        return None

    def books(self, revision: Revision = FIRST) -> list[Book]:
        """Return every book as it is at ``revision``, in catalogue order."""
        changes = last_changes(self.name, self.seed, self.count, revision)
        return [book(self.seed, number, changes[number]) for number in range(self.count)]

    def _listing(self, listing: int, root: str, revision: Revision) -> Page:
        first = (listing - 1) * BOOKS_PER_LISTING
        numbers = range(first, min(first + BOOKS_PER_LISTING, self.count))
        changes = last_changes(self.name, self.seed, self.count, revision)
        shown = [book(self.seed, number, changes[number]) for number in numbers]
        catalogue = "" if root else "catalogue/"
        pods = "\n".join(pod(each, catalogue, root) for each in shown)
        text = (
            HEAD.format(title="All products", root=root)
            + categories(catalogue)
            + f'<div class="col-sm-8 col-md-9"><div class="page-header action">'
            f'<h1>All products</h1></div>\n<form method="get" class="form-horizontal"><strong>'
            f"{self.count}</strong> results - showing <strong>{first + 1}</strong> to <strong>"
            f'{numbers[-1] + 1}</strong>.</form>\n<section><div><ol class="row">{pods}</ol>\n'
            + pager(listing, self.listings, catalogue)
            + "</div></section></div>"
            + FOOT.format(root=root)
        )
        return text_page(text, "text/html", max(changes[number] for number in numbers))

    def _detail(self, number: int, revision: Revision) -> Page:
        change = last_changes(self.name, self.seed, self.count, revision)[number]
        shown = book(self.seed, number, change)
        seen_before = [book(self.seed, other, 1) for other in range(max(0, number - 4), number)]
        text = (
            HEAD.format(title=escape(shown.title), root="../../")
            + breadcrumb(shown)
            + product(shown)
            + '<div class="sub-header"><h2>Products you recently viewed</h2></div><ul class="row">'
            + "\n".join(pod(other, "../", "../../") for other in seen_before)
            + "</ul>"
            + FOOT.format(root="../../")
        )
        return text_page(text, "text/html", change)


def pod(shown: Book, catalogue: str, root: str) -> str:
    """Return a book as listings show it: the visible title cut short, the whole one beside it."""
    title = escape(shown.title)
    short = shown.title if len(shown.title) < 24 else shown.title[:20] + "..."
    return f"""
    <li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">
    <article class="product_pod">
            <div class="image_container">
                    <a href="{catalogue}{shown.slug}/index.html"><img src="{root}{shown.image}"
                    alt="{title}" class="thumbnail"></a>
            </div>
                <p class="star-rating {WORDS_OF_RATING[shown.rating - 1]}">
                    <i class="icon-star"></i><i class="icon-star"></i><i class="icon-star"></i>
                    <i class="icon-star"></i><i class="icon-star"></i>
                </p>
            <h3><a href="{catalogue}{shown.slug}/index.html"
            title="{title}">{escape(short)}</a></h3>
            <div class="product_price">
        <p class="price_color">{shown.price}</p>
        <p class="instock availability"><i class="icon-ok"></i>
        In stock
        </p>
    <form><button type="submit" class="btn btn-primary btn-block"
    data-loading-text="Adding...">Add to basket</button></form>
            </div>
    </article>
    </li>"""


def categories(catalogue: str) -> str:
    links = "\n".join(
        f'                <li>\n                    <a href="{catalogue}category/books/'
        f'{name.lower()}_{number}/index.html">\n                            {name}\n'
        f"                    </a>\n                </li>"
        for number, name in enumerate(CATEGORIES, 2)
    )
    return (
        '<div class="row"><aside class="sidebar col-sm-4 col-md-3"><div class="side_categories">'
        f'<ul class="nav nav-list"><li><a href="{catalogue}category/books_1/index.html">Books</a>'
        f"<ul>\n{links}\n</ul></li></ul></div></aside>"
    )


def pager(listing: int, listings: int, catalogue: str) -> str:
    links = f'<li class="current">Page {listing} of {listings}</li>'
    if listing > 1:
        links = f'<li class="previous"><a href="page-{listing - 1}.html">previous</a></li>' + links
    if listing < listings:
        links += f'<li class="next"><a href="{catalogue}page-{listing + 1}.html">next</a></li>'
    return f'<div><ul class="pager">{links}</ul></div>'


def breadcrumb(shown: Book) -> str:
    name = CATEGORIES[shown.category]
    address = f"../category/books/{name.lower()}_{shown.category + 2}/index.html"
    return f"""<ul class="breadcrumb">
    <li><a href="../../index.html">Home</a></li>
    <li><a href="../category/books_1/index.html">Books</a></li>
    <li><a href="{address}">{name}</a></li>
    <li class="active">{escape(shown.title)}</li>
</ul>"""


def product(shown: Book) -> str:
    title = escape(shown.title)
    described = ""
    if shown.description is not None:
        described = (
            '<div id="product_description" class="sub-header"><h2>Product Description</h2></div>\n'
            f"<p>{escape(shown.description)} ...more</p>"
        )
    facts = {
        "UPC": shown.upc,
        "Product Type": "Books",
        "Price (excl. tax)": shown.price,
        "Price (incl. tax)": shown.price,
        "Tax": "£0.00",
        "Availability": f"In stock ({shown.stock} available)",
        "Number of reviews": "0",
    }
    rows = "\n".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts.items())
    return f"""
<article class="product_page"><div class="row">
    <div class="col-sm-6"><div id="product_gallery" class="carousel"><div class="thumbnail">
        <div class="carousel-inner"><div class="item active">
            <img src="../../{shown.image}" alt="{title}" />
        </div></div></div></div></div>
    <div class="col-sm-6 product_main">
    <h1>{title}</h1>
        <p class="price_color">{shown.price}</p>
<p class="instock availability">
    <i class="icon-ok"></i>
        In stock ({shown.stock} available)
</p>
    <p class="star-rating {WORDS_OF_RATING[shown.rating - 1]}">
        <i class="icon-star"></i><i class="icon-star"></i><i class="icon-star"></i>
        <i class="icon-star"></i><i class="icon-star"></i>
    </p>
    <hr/>
    <div class="alert alert-warning" role="alert"><strong>Warning!</strong> This is a demo website
    for web scraping purposes. Prices and ratings here were randomly assigned.</div>
    </div></div>
{described}
<div class="sub-header"><h2>Product Information</h2></div>
<table class="table table-striped">
{rows}
</table>
</article>"""
