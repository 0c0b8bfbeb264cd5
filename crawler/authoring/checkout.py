"""The checkout in which the author of a source works: its spiders and the saved pages beside them."""

from pathlib import Path
from typing import NamedTuple

from scrapy.utils.conf import closest_scrapy_cfg

from crawler.exceptions import CheckoutError


class Checkout(NamedTuple):
    """The folder that holds scrapy.cfg."""

    folder: Path

    @property
    def spiders(self) -> Path:
        """One file for each source."""
        return self.folder / "spiders"

    @property
    def saved_pages(self) -> Path:
        """One folder for each source, in it one for each saved page."""
        return self.folder / "tests" / "sites"


def current_checkout() -> Checkout:
    """Return the checkout around the working directory. Raise CheckoutError if there is none."""
    found = closest_scrapy_cfg()
    if not found:
        raise CheckoutError(
            f"{Path.cwd()} is in no checkout of the project; allowed: a folder with scrapy.cfg in it or "
            "above it. Change to the checkout and repeat the command"
        )
    return Checkout(Path(found).parent)
