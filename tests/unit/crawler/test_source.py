"""What a spider's attributes and arguments mean, before any crawl."""

from typing import Any

import pytest
from scrapy import Spider

from crawler.source import Revisit, SourceSpider, is_reset, revisit_of


class Shop(SourceSpider):
    name = "shop"
    base_url = "https://shop.example/"


def shop(**attributes: Any) -> type[SourceSpider]:
    return type("Other", (Shop,), attributes)


@pytest.mark.parametrize("revisit", ["never", "if-changed", "always"])
def test_a_source_is_revisited_as_it_says(revisit: Revisit) -> None:
    assert revisit_of(shop(revisit=revisit)) == revisit


def test_it_reads_what_has_changed_if_it_says_nothing_and_a_spider_of_another_kind_everything() -> None:
    assert revisit_of(Shop) == "if-changed"
    assert revisit_of(Spider) == "always"


@pytest.mark.parametrize(
    ("revisit", "meant"), [("if-changed", "always"), ("never", "never"), ("always", "always")]
)
def test_an_unchanged_page_of_a_time_series_is_an_observation(revisit: Revisit, meant: Revisit) -> None:
    assert revisit_of(shop(revisit=revisit, keep="every")) == meant


@pytest.mark.parametrize("revisit", ["sometimes", None, True, "If-Changed"])
def test_any_other_word_is_refused_with_those_allowed(revisit: object) -> None:
    with pytest.raises(ValueError, match="'shop'; allowed: never, if-changed, always"):
        revisit_of(shop(revisit=revisit))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({}, False),
        ({"deltafetch_reset": "1"}, True),
        ({"deltafetch_reset": "yes"}, True),
        ({"deltafetch_reset": True}, True),
        ({"deltafetch_reset": "0"}, False),
        ({"deltafetch_reset": "False"}, False),
        ({"deltafetch_reset": ""}, False),
    ],
)
def test_a_crawl_is_told_to_forget_by_an_argument(given: dict[str, Any], meant: bool) -> None:
    assert is_reset(Shop(**given)) is meant


def test_or_by_an_attribute_of_any_spider() -> None:
    assert not is_reset(Spider("plain"))
    assert is_reset(Spider("plain", deltafetch_reset=True))


def test_an_argument_that_is_none_is_refused_with_those_allowed() -> None:
    with pytest.raises(ValueError, match="delta_reset; allowed: base_url, deltafetch_reset"):
        Shop(delta_reset="1")
