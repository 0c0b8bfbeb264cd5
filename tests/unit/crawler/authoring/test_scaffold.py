"""What a new source begins with: each template, filled in for an address, against its own example pages."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scrapy import Spider
from scrapy.settings import Settings
from scrapy.utils.spider import iter_spider_classes

from crawler.authoring.golden import expect, parse, spider_of
from crawler.authoring.rules import findings
from crawler.authoring.saved_pages import EXAMPLE, case_of, save_case
from crawler.authoring.scaffold import (
    EXAMPLE_PAGES,
    check_name,
    checked_address,
    example_pages,
    page_of_file,
    spider_source,
    templates,
)
from crawler.commands.genspider import TEMPLATES
from crawler.exceptions import ScaffoldError
from tests.support.crawls import REPOSITORY

ADDRESS = "https://shop.example/things/?sort=new"
SETTINGS = Settings({"ROBOTSTXT_OBEY": True, "DOWNLOAD_DELAY": 1.0})


def loaded(template: str, folder: Path, url: str = ADDRESS) -> type[Spider]:
    """Write the spider of a template and import it, as Scrapy would."""
    file = folder / f"shop_{template}.py"
    file.write_text(spider_source(template, file.stem, url), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(f"spiders_of_test.{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [spidercls] = iter_spider_classes(module)
    return spidercls


def save_examples(template: str, spidercls: type[Spider], saved_pages: Path) -> dict[str, dict[str, Any]]:
    """Save the example pages with what they give as what is expected, and return that."""
    found = {}
    spider = spider_of(spidercls, SETTINGS)
    for name, page in example_pages(template, spidercls.name, ADDRESS).items():
        folder = saved_pages / spidercls.name / name
        case = case_of(page, folder, callback=f"parse_{name}", origin=EXAMPLE)
        save_case(case, page.body)
        found[name] = parse(spider, case)
        expect(case, found[name])
    return found


@pytest.fixture
def unimported() -> Iterator[None]:
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("spiders_of_test"):
            del sys.modules[name]


def test_there_is_an_example_for_every_template() -> None:
    shipped = {Path(file.name).stem for file in (templates() / "spiders").iterdir()}
    assert shipped == set(TEMPLATES) == EXAMPLE_PAGES.keys()


@pytest.mark.parametrize(
    ("template", "amounts"),
    [
        ("listing", {"listing": (0, 3), "item": (1, 0)}),
        ("feed", {"feed": (2, 0)}),
        ("api", {"records": (2, 1)}),
        ("docs", {"page": (1, 2)}),
    ],
)
@pytest.mark.usefixtures("unimported")
def test_a_spider_finds_what_its_example_pages_hold(
    template: str, amounts: dict[str, tuple[int, int]], tmp_path: Path
) -> None:
    spidercls = loaded(template, tmp_path)
    found = save_examples(template, spidercls, tmp_path / "sites")
    assert {name: (len(each["items"]), len(each["links"])) for name, each in found.items()} == amounts
    assert all(each.keys() == {"items", "links"} for each in found.values()), found
    for each in found.values():
        for item in each["items"]:
            # The examples leave some things out, but nothing that names the thing.
            assert item["url"]
            assert None not in [item["data"][name] for name in [spidercls.key]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.usefixtures("unimported")
def test_breaks_no_rule_but_what_its_author_has_to_write(template: str, tmp_path: Path) -> None:
    spidercls = loaded(template, tmp_path)
    save_examples(template, spidercls, tmp_path / "sites")
    messages = [finding.message for finding in findings([spidercls], SETTINGS, tmp_path / "sites")]
    terms = [message for message in messages if message.endswith("is still the template's")]
    examples = [message for message in messages if message.endswith("is a page that was made up")]
    assert (len(terms), len(examples)) == (3, len(EXAMPLE_PAGES[template])), messages
    assert len(messages) == len(terms) + len(examples), messages


def test_every_template_is_in_the_house_style(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes((REPOSITORY / "pyproject.toml").read_bytes())
    folder = tmp_path / "spiders"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for template in TEMPLATES:
        for name, url in (("s", "http://a.example/"), (f"a_shop_of_a_longer_name_{template}", ADDRESS)):
            file = folder / f"{name}_{template}.py"
            file.write_text(spider_source(template, file.stem, url), encoding="utf-8")
            assert 30 <= len(file.read_text(encoding="utf-8").splitlines()) <= 75
    for arguments in (("format", "--check", "--quiet"), ("check", "--quiet")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, str(folder)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_every_template_is_typed(tmp_path: Path) -> None:
    files = []
    for template in TEMPLATES:
        files.append(tmp_path / f"shop_{template}.py")
        files[-1].write_text(spider_source(template, files[-1].stem, ADDRESS), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        *map(str, files),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("template", "url", "base_url", "path"),
    [
        ("listing", "https://shop.example/a/b?c=d", "https://shop.example/", "a/b?c=d"),
        ("feed", "http://127.0.0.1:8001/", "http://127.0.0.1:8001/", ""),
        ("docs", "https://shop.example/docs/index.html", "https://shop.example/docs/", "index.html"),
        ("docs", "https://shop.example/docs/", "https://shop.example/docs/", ""),
        ("docs", "https://shop.example/", "https://shop.example/", ""),
    ],
)
def test_an_address_is_split_where_a_copy_would_differ(
    template: str, url: str, base_url: str, path: str
) -> None:
    source = spider_source(template, "shop", url)
    assert f'    base_url = "{base_url}"\n' in source
    assert f'self.site_url("{path}")' in source


def test_sources_start_at_times_of_their_own_but_always_the_same() -> None:
    def schedule(name: str) -> str:
        [line] = [line for line in spider_source("api", name, ADDRESS).splitlines() if "schedule =" in line]
        return line

    assert schedule("books") == schedule("books")
    assert len({schedule(f"shop_{number}") for number in range(50)}) > 40


@pytest.mark.parametrize(
    "name", ["Shop", "1shop", "my-shop", "shop.example", "", "a b", "class", "läden", "_x"]
)
def test_a_name_that_cannot_be_a_file_a_class_and_a_source_is_refused(name: str) -> None:
    with pytest.raises(ScaffoldError, match=r"^the name '.*'; allowed: \[a-z\]"):
        check_name(name)


def test_a_good_name_is_taken() -> None:
    check_name("a1_b")


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        (ADDRESS, ADDRESS),
        ("https://shop.example", "https://shop.example/"),
        ("https://shop.example?a=b#c", "https://shop.example/?a=b"),
        ('https://shop.example/é"x"', "https://shop.example/%C3%A9%22x%22"),
    ],
)
def test_an_address_is_as_a_crawl_asks_for_it(typed: str, address: str) -> None:
    assert checked_address(typed) == address


@pytest.mark.parametrize(
    "url", ["shop.example", "ftp://shop.example/", "https://", "/path", "mailto:a@b.example"]
)
def test_an_address_at_which_no_crawl_can_start_is_refused(url: str) -> None:
    with pytest.raises(ScaffoldError, match="allowed: an absolute http:// or https:// URL"):
        checked_address(url)


def test_a_file_stands_for_the_page_of_an_address(tmp_path: Path) -> None:
    file = tmp_path / "answer.json"
    file.write_bytes(b'{"a": 1}')
    page = page_of_file(ADDRESS, file)
    assert (page.url, page.body, page.headers["Content-Type"]) == (ADDRESS, b'{"a": 1}', b"application/json")
    with pytest.raises(ScaffoldError, match=r"--page '.*absent.html' cannot be read"):
        page_of_file(ADDRESS, tmp_path / "absent.html")
