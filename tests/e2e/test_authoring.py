"""From an address to rows, as the author of a source types it, in a checkout of the test's own."""

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scrapy.http import Response

from crawler.authoring.scaffold import example_pages
from tests.support.crawls import REPOSITORY, Done, Host
from tests.support.page_server import Answer, PageServer

pytestmark = pytest.mark.e2e

NOBODY = "http://127.0.0.1:9/things/"
HTML = {"Content-Type": "text/html; charset=utf-8"}
LISTING = b'<h1>All</h1><article><h2><a href="/items/1">One</a></h2></article>'


class Checkout:
    """The project as its author has it, with no spider yet: the code is this repository's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        (self.folder / "spiders").mkdir(parents=True)
        (self.folder / "spiders" / "__init__.py").touch()
        for name in ("scrapy.cfg", "pyproject.toml"):
            shutil.copy(REPOSITORY / name, self.folder)
        for name in ("crawler", "pipelines", "extensions"):
            (self.folder / name).symlink_to(REPOSITORY / name)
        self.host = Host(folder / "host", settings={"CRAWLER_CONTACT": "mailto:author@example.org"})

    def scrapy(self, *arguments: str) -> Done:
        return self.host.scrapy(*arguments, cwd=self.folder)

    def genspider(self, template: str, name: str, url: str, *options: str) -> Done:
        return self.scrapy("genspider", "-t", template, name, url, *options)

    @property
    def written(self) -> set[str]:
        """What an author would add to git."""
        places = (self.folder / "spiders", self.folder / "tests")
        files = [file for place in places for file in place.rglob("*") if file.is_file()]
        return {str(file.relative_to(self.folder)) for file in files if "__pycache__" not in file.parts} - {
            "spiders/__init__.py"
        }

    def case(self, name: str) -> Path:
        return self.folder / "tests" / "sites" / name


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.fixture
def site() -> Iterator[PageServer]:
    with PageServer({"/list": Answer(LISTING, headers=HTML)}) as server:
        yield server


def answers_of(template: str, url: str) -> dict[str, Answer]:
    """Return a site whose pages are the examples of a template."""
    pages = example_pages(template, "shop", f"{url}things/")
    first, *others = map(answer_of, pages.values())
    answers = {"/things/": first}
    if template == "listing":
        answers |= {"/items/1": others[0], "/items/2": others[0]}
    if template == "docs":
        answers["/things/hats.html"] = first
    if template == "api":
        answers["/?page=2"] = Answer(
            b'{"results": [], "next": null}', headers={"Content-Type": "application/json"}
        )
    return answers


def answer_of(page: Response) -> Answer:
    return Answer(page.body, headers={"Content-Type": (page.headers["Content-Type"] or b"").decode()})


@pytest.mark.parametrize(
    "template", ["listing", *(pytest.param(name, marks=pytest.mark.slow) for name in ("feed", "api", "docs"))]
)
def test_a_new_source_crawls_its_site_to_rows(template: str, host: Host, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.host.database_url = host.database_url
    with PageServer() as site:
        site.answers = answers_of(template, site.url)
        done = checkout.genspider(template, "shop", f"{site.url}things/")
        assert done.status == 0, done.said
        assert "bytes, fetched)" in done.out
        assert checkout.scrapy("golden", "shop", "--update").status == 0
        crawled = checkout.scrapy("crawl", "shop", "-s", "DOWNLOAD_DELAY=0")
        assert crawled.status == 0, crawled.said
    assert host.count("shop") == 2
    assert checkout.host.run().counts.lost == 0


class TestGenspider:
    def test_saves_the_page_as_the_site_gave_it_and_asks_as_a_crawl_does(
        self, checkout: Checkout, site: PageServer
    ) -> None:
        site.answers["/list"] = Answer(gzip.compress(LISTING), headers=HTML | {"Content-Encoding": "gzip"})
        site.answers["/old"] = Answer(status=301, headers={"Location": "/list"})
        done = checkout.genspider("listing", "shop", f"{site.url}old")
        assert done.status == 0, done.said
        assert f"{site.url}old leads to {site.url}list: the spider starts there" in done.out
        assert checkout.written == {
            "spiders/shop.py",
            "tests/sites/shop/listing/case.json",
            "tests/sites/shop/listing/page.html",
        }
        assert (checkout.case("shop/listing") / "page.html").read_bytes() == LISTING
        case = json.loads((checkout.case("shop/listing") / "case.json").read_text())
        assert (case["url"], case["origin"]) == (f"{site.url}list", "fetched")
        assert case["headers"] == {"Content-Type": HTML["Content-Type"]}
        assert 'self.site_url("list")' in (checkout.folder / "spiders" / "shop.py").read_text()
        # Another delay than that of a crawl is not needed: one page, and what says whether it may be had.
        assert site.paths == ["/robots.txt", "/old", "/list"]
        agents = {headers["User-Agent"] for _path, headers in site.requests}
        assert agents == {"data-crawler/0.1 (+mailto:author@example.org)"}
        assert not checkout.host.state_dir.exists()

    @pytest.mark.parametrize(
        ("answer", "path", "message"),
        [
            (
                Answer(b"User-agent: data-crawler\nDisallow: /list\n"),
                "/robots.txt",
                "list is not to be fetched: Forbidden by robots.txt. Allowed: what robots.txt leaves open",
            ),
            (Answer(status=404), "/list", "list answers 404; allowed: an address that answers 200"),
        ],
        ids=["robots", "404"],
    )
    def test_takes_no_for_an_answer_and_writes_nothing(
        self, answer: Answer, path: str, message: str, checkout: Checkout, site: PageServer
    ) -> None:
        site.answers[path] = answer
        done = checkout.genspider("listing", "shop", f"{site.url}list")
        assert (done.status, message in done.err) == (2, True), done.said
        assert checkout.written == set()
        assert ("/list" in site.paths) is (path == "/list")

    @pytest.mark.slow
    def test_waits_for_a_silent_site_no_longer_than_it_says(
        self, checkout: Checkout, site: PageServer
    ) -> None:
        site.answers["/list"] = Answer(LISTING, headers=HTML, delay_seconds=60)
        done = checkout.genspider("listing", "shop", f"{site.url}list", "-s", "DOWNLOAD_TIMEOUT=1")
        assert done.status == 0, done.said
        assert f"{site.url}list cannot be reached: " in done.out
        assert "An example is saved instead" in done.out
        assert done.seconds < 30

    def test_writes_an_example_when_nobody_answers(self, checkout: Checkout) -> None:
        done = checkout.genspider("listing", "shop", NOBODY)
        assert (done.status, done.err) == (0, "")
        assert f"{NOBODY} cannot be reached: Connection was refused" in done.out
        assert "An example is saved instead of its page" in done.out
        printed = {line.split()[1] for line in done.out.splitlines() if line.startswith("wrote ")}
        assert printed == {
            "spiders/shop.py",
            "tests/sites/shop/listing/page.html",
            "tests/sites/shop/item/page.html",
        }
        assert all((checkout.folder / path).is_file() for path in printed)
        assert f"--save {NOBODY} --callback parse_listing --case listing --force" in done.out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("Shop", NOBODY), "the name 'Shop'; allowed: [a-z][a-z0-9_]*"),
            (("shop", "ftp://shop.example/"), "the address 'ftp://shop.example/'; allowed: an absolute http"),
            (("shop",), "give a name and an address: scrapy genspider -t listing NAME URL"),
            (("shop", NOBODY, "-t", "shop"), "invalid choice: 'shop'"),
            (("shop", NOBODY, "--page", "absent.html"), "--page 'absent.html' cannot be read"),
        ],
    )
    @pytest.mark.slow
    def test_says_what_was_wrong(self, arguments: tuple[str, ...], message: str, checkout: Checkout) -> None:
        done = checkout.scrapy("genspider", *arguments)
        assert (done.status, message in done.err, "Traceback" in done.err) == (2, True, False), done.said
        assert checkout.written == set()

    @pytest.mark.slow
    def test_templates_are_listed_and_shown_by_scrapys_own_options(self, checkout: Checkout) -> None:
        assert checkout.scrapy("genspider", "--list").out.split()[-4:] == ["api", "docs", "feed", "listing"]
        assert "class $classname(SourceSpider)" in checkout.scrapy("genspider", "--dump", "feed").out

    @pytest.mark.slow
    def test_overwrites_only_when_told_to(self, checkout: Checkout) -> None:
        spider = checkout.folder / "spiders" / "shop.py"
        spider.write_text("# mine\n")
        refused = checkout.genspider("listing", "shop", NOBODY)
        assert refused.status == 2
        assert "spiders/shop.py is there already; allowed: a new name" in refused.err
        assert spider.read_text() == "# mine\n"
        done = checkout.genspider("listing", "shop", NOBODY, "--force")
        assert done.status == 0, done.said
        assert "class ShopSpider" in spider.read_text()


@pytest.fixture(scope="module")
def shop_of_module(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with one source, made of a file that was saved by hand, and what it gives expected."""
    folder = tmp_path_factory.mktemp("shop")
    checkout = Checkout(folder)
    (folder / "saved.html").write_bytes(LISTING)
    options = ("--page", str(folder / "saved.html"))
    done = checkout.genspider("listing", "shop", "http://shop.example/list", *options)
    assert done.status == 0, done.said
    assert "tests/sites/shop/listing/page.html (66 bytes, file saved.html)" in done.out
    assert "The other kind of page: scrapy golden shop --save ITS-URL --callback parse_item" in done.out
    assert checkout.scrapy("golden", "shop", "--update").status == 0
    return checkout


class TestGolden:
    @pytest.fixture
    def shop(self, shop_of_module: Checkout, checkout: Checkout) -> Checkout:
        for name in ("spiders", "tests"):
            shutil.copytree(shop_of_module.folder / name, checkout.folder / name, dirs_exist_ok=True)
        return checkout

    def test_shows_what_is_no_longer_as_expected_until_it_is_said_anew(self, shop: Checkout) -> None:
        page = shop.case("shop/listing") / "page.html"
        page.write_bytes(LISTING.replace(b"items/1", b"items/5"))
        done = shop.scrapy("golden", "shop")
        assert done.status == 1
        assert "shop/listing: NOT AS EXPECTED: 0 items, 1 link" in done.out
        assert "  link http://shop.example/items/1: missing; expected: " in done.out
        assert "  link http://shop.example/items/5: not expected: " in done.out
        assert "if what was found is right: scrapy golden shop --update" in done.out
        updated = shop.scrapy("golden", "shop", "--update")
        assert updated.out.startswith("shop/listing: from now on expected: 0 items, 1 link\n")
        item = "http://shop.example/items/5"
        # Nobody has saved a page for the callback that the link is for.
        assert shop.scrapy("golden", "shop").out.splitlines() == [
            "shop/listing: as expected: 0 items, 1 link",
            f"Next: a page for parse_item: scrapy golden shop --save {item} --callback parse_item",
        ]

    def test_saves_a_page_of_the_site_as_a_case(self, shop: Checkout, site: PageServer) -> None:
        site.answers["/items/1"] = Answer("<h1>Kettle €</h1>".encode(), headers=HTML)
        options = ("--save", f"{site.url}items/1", "--callback", "parse_item")
        done = shop.scrapy("golden", "shop", *options)
        assert done.status == 1
        assert "saved tests/sites/shop/item/page.html (19 bytes, for parse_item)" in done.out
        assert "shop/item: nothing is expected yet; the page gives: 1 item, 0 links" in done.out
        assert '"title": "Kettle €"' in done.out
        assert site.paths == ["/robots.txt", "/items/1"]

    @pytest.mark.slow
    def test_the_next_page_of_a_callback_gets_a_number(self, shop: Checkout, site: PageServer) -> None:
        options = ("--save", f"{site.url}list", "--callback", "parse_listing")
        assert "shop/listing_2: nothing is expected yet" in shop.scrapy("golden", "shop", *options).out

    def test_a_page_that_is_saved_anew_shows_what_has_changed(self, shop: Checkout, site: PageServer) -> None:
        site.answers["/list"] = Answer(LISTING.replace(b"items/1", b"items/7"), headers=HTML)
        options = ("--save", f"{site.url}list", "--callback", "parse_listing", "--case", "listing", "--force")
        done = shop.scrapy("golden", "shop", *options)
        assert done.status == 1
        assert "shop/listing: NOT AS EXPECTED: 0 items, 1 link" in done.out
        assert "link http://shop.example/items/1: missing; expected: " in done.out
        assert f"link {site.url}items/7: not expected: " in done.out

    def test_touches_neither_the_reactor_nor_the_state_folder(self, shop: Checkout) -> None:
        program = (
            "import sys; from scrapy.cmdline import execute\n"
            "try: execute(['scrapy', 'golden', 'shop'])\n"
            "except SystemExit as end:\n"
            "    names = {'twisted.internet.reactor', 'sqlite3', 'psycopg2'} & sys.modules.keys()\n"
            "    print(end.code, sorted(names - {'psycopg2'}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=shop.folder,
            env=shop.host.environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.stdout.splitlines()[-1] == "0 []", done.stderr
        assert not shop.host.state_dir.exists()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nonesuch",), "there is no spider 'nonesuch'; allowed: shop"),
            (
                ("shop", "--page", "absent.html"),
                "--page 'absent.html' is no saved page; allowed: tests/sites/",
            ),
            (("shop", "--callback", "parse_item"), "--callback is for a page that is saved; add --save URL"),
            (("--save", NOBODY), "--save takes one source"),
            (
                ("shop", "--save", "shop.example"),
                "--save 'shop.example'; allowed: an http:// or https:// URL",
            ),
            (
                ("shop", "--save", NOBODY),
                "--callback is missing of ShopSpider; allowed: parse_item, parse_listing",
            ),
            (
                ("shop", "--save", NOBODY, "--callback", "parse_x"),
                "--callback 'parse_x' is none of ShopSpider",
            ),
            (
                ("shop", "--save", NOBODY, "--callback", "parse_item", "--cb-kwargs", "[1]"),
                "--cb-kwargs '[1]'; allowed: a JSON object",
            ),
            (
                ("shop", "--save", NOBODY, "--callback", "parse_listing", "--case", "listing"),
                "tests/sites/shop/listing is there; name another case, or replace it with --force",
            ),
            (
                ("shop", "--save", NOBODY, "--callback", "parse_item", "--case", "../x"),
                "--case '../x'; allowed: small letters",
            ),
        ],
    )
    @pytest.mark.slow
    def test_says_what_was_wrong(self, arguments: tuple[str, ...], message: str, shop: Checkout) -> None:
        before = shop.written
        done = shop.scrapy("golden", *arguments)
        assert (done.status, message in done.err, "Traceback" in done.err) == (2, True, False), done.said
        assert shop.written == before

    @pytest.mark.slow
    def test_a_site_that_does_not_answer_is_a_finding(self, shop: Checkout) -> None:
        done = shop.scrapy("golden", "shop", "--save", NOBODY, "--callback", "parse_item")
        assert (done.status, "cannot be reached" in done.err) == (1, True), done.said

    @pytest.mark.slow
    def test_chooses_by_the_saved_page(self, shop: Checkout) -> None:
        page = "tests/sites/shop/listing/page.html"
        assert shop.scrapy("golden", "--page", page).out == "shop/listing: as expected: 0 items, 1 link\n"


def test_the_sources_keep_the_rules(lonely_host: Host) -> None:
    checked = lonely_host.scrapy("sources", "--check")
    assert (checked.status, ": no findings\n" in checked.out) == (0, True), checked.said
    assert not lonely_host.state_dir.exists()


@pytest.mark.slow
def test_sources_are_listed_and_written(lonely_host: Host, tmp_path: Path) -> None:
    assert "books          17 4 * * *" in lonely_host.scrapy("sources").out
    page = tmp_path / "sources.md"
    assert lonely_host.scrapy("sources", "--write", str(page)).status == 0
    assert page.read_text(encoding="utf-8") == (REPOSITORY / "docs" / "sources.md").read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
def test_a_source_that_breaks_a_rule_is_a_finding(shop_of_module: Checkout) -> None:
    done = shop_of_module.scrapy("sources", "--check", "--json")
    assert done.status == 1
    report = json.loads(done.out)
    assert [source["name"] for source in report["sources"]] == ["shop"]
    assert {finding["id"] for finding in report["findings"]} == {"CR-E106", "CR-E108"}
