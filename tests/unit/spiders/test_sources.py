"""Every source keeps the rules, and finds in its saved pages exactly what is expected."""

from functools import cache

import pytest
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.spiderloader import get_spider_loader

from crawler.authoring.catalogue import described, page_of
from crawler.authoring.checkout import Checkout
from crawler.authoring.differences import differences
from crawler.authoring.golden import expected_of, parse, spider_of
from crawler.authoring.rules import files_without_spider, findings
from crawler.authoring.saved_pages import Case, cases_of
from tests.support.crawls import REPOSITORY

CHECKOUT = Checkout(REPOSITORY)


@cache
def project_settings() -> Settings:
    settings = Settings()
    settings.setmodule("crawler.settings", priority="project")
    return settings


@cache
def spiders() -> dict[str, type[Spider]]:
    loader = get_spider_loader(project_settings())
    return {name: loader.load(name) for name in sorted(loader.list())}


def all_cases() -> list[Case]:
    return [case for name in spiders() for case in cases_of(CHECKOUT.saved_pages / name)]


def test_every_source_keeps_the_rules() -> None:
    found = findings(spiders().values(), project_settings(), CHECKOUT.saved_pages)
    assert [*found, *files_without_spider(CHECKOUT.spiders, spiders())] == []


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_a_saved_page_gives_what_is_expected(case: Case) -> None:
    source = case.folder.parent.name
    expected = expected_of(case)
    assert expected is not None, f"nothing is expected yet; see what it gives: scrapy golden {source}"
    found = parse(spider_of(spiders()[source], project_settings()), case)
    assert differences(expected, found) == [], f"if that is right: scrapy golden {source} --update"
    assert expected == found


def test_no_folder_of_saved_pages_is_without_its_spider() -> None:
    assert {folder.name for folder in CHECKOUT.saved_pages.iterdir()} == set(spiders())


def test_the_page_of_sources_is_current() -> None:
    current = page_of(described(spidercls, project_settings()) for spidercls in spiders().values())
    written = (REPOSITORY / "docs" / "sources.md").read_text(encoding="utf-8")
    assert written == current, "write it anew: scrapy sources --write docs/sources.md"
