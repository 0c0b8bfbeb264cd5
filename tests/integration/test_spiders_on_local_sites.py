"""Each spider, run as its own process against the local copy of its site."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from demo.sites.process import REPOSITORY, SitesError, control, requests_served, running_sites
from demo.sites.server import SCALES
from tests.support.tools import require_path

pytestmark = pytest.mark.integration

SMALL = SCALES["small"]
COUNTS = {
    "books": SMALL.books,
    "python_docs": SMALL.python_docs,
    "earthquakes": SMALL.earthquakes,
    "pypi_releases": SMALL.pypi_releases,
}
KEYS = {
    "books": ("upc",),
    "python_docs": ("page",),
    "earthquakes": ("event_id",),
    "pypi_releases": ("project", "version"),
}
DEBIAN_DOCUMENTATION = Path("/usr/share/doc/python3/html")
FEED_PATHS = {
    "earthquakes": "earthquakes/feed/v1.0/summary/all_day.geojson",
    "pypi_releases": "rss/updates.xml",
}

Item = dict[str, Any]


@dataclass(frozen=True)
class Crawl:
    items: dict[tuple[str, ...], Item]
    log: str


@dataclass(frozen=True)
class Crawler:
    """Runs spiders outside any project, so that only the spider itself is under test."""

    folder: Path

    def crawl(self, spider: str, base_url: str, **settings: object) -> Crawl:
        output = self.folder / f"{spider}.jsonl"
        settings = {
            "AUTOTHROTTLE_ENABLED": False,
            "CONCURRENT_REQUESTS_PER_DOMAIN": 8,
            "DOWNLOAD_DELAY": 0,
            "LOG_LEVEL": "INFO",
            "RETRY_TIMES": 3,
            "ROBOTSTXT_OBEY": True,
            "TELNETCONSOLE_ENABLED": False,
        } | settings
        command = [sys.executable, "-m", "scrapy", "runspider"]
        command += [str(REPOSITORY / "spiders" / f"{spider}.py"), "-O", str(output)]
        command += ["-a", f"base_url={base_url}"]
        for name, value in settings.items():
            command += ["-s", f"{name}={value}"]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("SCRAPY_")
        } | {"PYTHONPATH": str(REPOSITORY)}
        process = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )
        assert process.returncode == 0, process.stderr
        assert "Traceback" not in process.stderr, process.stderr
        lines = output.read_text().splitlines()
        items = {key_of(spider, item): item for item in map(json.loads, lines)}
        assert len(items) == len(lines), "two items have the same key"
        return Crawl(items, process.stderr)


def key_of(spider: str, item: Item) -> tuple[str, ...]:
    return tuple(str(item[field]) for field in KEYS[spider])


@pytest.fixture(scope="module")
def sites_of_module() -> Iterator[dict[str, str]]:
    with running_sites(scale="small") as addresses:
        yield addresses


@pytest.fixture
def sites(sites_of_module: dict[str, str]) -> dict[str, str]:
    """The base URL of each site, all in their first revision, without faults, counting from 0."""
    for base_url in sites_of_module.values():
        control(base_url, revision=1, share=0.1, rewrites={}, faults=[], robots=None, validators="both")
        requests_served(base_url, reset=True)
    return sites_of_module


@pytest.fixture
def crawler(tmp_path: Path) -> Crawler:
    return Crawler(tmp_path)


@pytest.mark.parametrize("spider", COUNTS)
def test_every_item_and_then_exactly_the_changed_ones(
    spider: str, sites: dict[str, str], crawler: Crawler
) -> None:
    first = crawler.crawl(spider, sites[spider])
    assert len(first.items) == COUNTS[spider]
    without_robots = spider == "books"
    assert requests_served(sites[spider])["by_status"].get("404", 0) == without_robots

    control(sites[spider], revision=2)
    second = crawler.crawl(spider, sites[spider])
    changed = [key for key, item in second.items.items() if first.items.get(key) != item]
    assert len(second.items) == COUNTS[spider]
    assert len(changed) == round(0.1 * COUNTS[spider])


@pytest.mark.parametrize("spider", ["books", "earthquakes"])
def test_every_page_fails_twice_and_all_items_arrive(
    spider: str, sites: dict[str, str], crawler: Crawler
) -> None:
    control(sites[spider], faults=[{"kind": "status", "status": 500, "times": 2}])
    assert len(crawler.crawl(spider, sites[spider]).items) == COUNTS[spider]
    served = requests_served(sites[spider])
    pages = [path for path in served["by_path"] if path != "/robots.txt"]
    assert {served["by_path"][path] for path in pages} == {3}
    assert served["by_status"]["500"] == 2 * len(pages)


def test_cut_dropped_slow_and_refused_answers_cost_no_item(sites: dict[str, str], crawler: Crawler) -> None:
    faults = [
        {"kind": "partial", "share": 0.2, "times": 1},
        {"kind": "drop", "share": 0.2, "times": 1},
        {"kind": "status", "status": 429, "share": 0.2, "times": 1},
        {"kind": "delay", "delay_seconds": 0.3, "share": 0.2, "times": 1},
    ]
    control(sites["books"], faults=faults)
    assert len(crawler.crawl("books", sites["books"]).items) == COUNTS["books"]
    assert requests_served(sites["books"])["by_fault"].keys() == {
        "partial",
        "drop",
        "status",
        "delay",
    }


@pytest.mark.slow
def test_the_full_catalogue_of_books(crawler: Crawler) -> None:
    with running_sites() as addresses:
        items = crawler.crawl("books", addresses["books"]).items
    assert len(items) == 1000
    assert any(item["description"] is None for item in items.values())


def test_the_real_pages_of_debian(crawler: Crawler) -> None:
    directory = require_path(DEBIAN_DOCUMENTATION, install="apt-get install python3-doc")
    with running_sites(scale="small", python_docs_dir=directory) as addresses:
        items = crawler.crawl("python_docs", addresses["python_docs"]).items.values()
    assert len(items) > 200
    for item in items:
        assert item["page"].startswith("library/")
        assert item["version"].startswith("3.")
        assert item["title"]
        assert item["headings"]
        assert item["links"] > 0
        assert item["text_length"] > 100


def fetch(url: str, **headers: str) -> tuple[int, Message, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=named), timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


class TestServer:
    @pytest.mark.parametrize("coding", ["identity", "gzip"])
    def test_a_known_page_is_not_sent_again(self, coding: str, sites: dict[str, str]) -> None:
        for number in range(1, 4):
            url = f"{sites['books']}catalogue/page-{number}.html"
            status, headers, body = fetch(url, Accept_Encoding=coding)
            assert status == 200
            assert len(body) == int(headers["Content-Length"])
            assert headers.get("Content-Encoding", "identity") == coding
            for condition in (
                {"If_None_Match": headers["ETag"]},
                {"If_Modified_Since": headers["Last-Modified"]},
            ):
                assert fetch(url, Accept_Encoding=coding, **condition)[::2] == (304, b"")

    @pytest.mark.parametrize(
        ("validators", "names"),
        [
            ("both", {"ETag", "Last-Modified"}),
            ("tag", {"ETag"}),
            ("date", {"Last-Modified"}),
            ("none", set()),
        ],
    )
    def test_what_a_page_is_known_by_is_as_ordered(
        self, validators: str, names: set[str], sites: dict[str, str]
    ) -> None:
        control(sites["books"], validators=validators)
        _, headers, _ = fetch(sites["books"])
        assert {"ETag", "Last-Modified"} & set(headers.keys()) == names

    @pytest.mark.parametrize("validators", ["unheeded", "stuck"])
    def test_a_site_can_be_ordered_to_send_everything_and_to_lie(
        self, validators: str, sites: dict[str, str]
    ) -> None:
        url = sites["earthquakes"] + FEED_PATHS["earthquakes"]
        _, first, body = fetch(url)
        control(sites["earthquakes"], validators=validators)
        assert fetch(url, If_None_Match=first["ETag"])[::2] == (200, body)
        control(sites["earthquakes"], revision=2)
        _, second, changed = fetch(url)
        assert changed != body
        assert (second["ETag"] == first["ETag"]) is (validators == "stuck")
        assert (second["Last-Modified"] == first["Last-Modified"]) is (validators == "stuck")

    def test_a_changed_page_is_sent_again(self, sites: dict[str, str]) -> None:
        url = sites["earthquakes"] + FEED_PATHS["earthquakes"]
        _, headers, _ = fetch(url)
        control(sites["earthquakes"], revision=2)
        assert fetch(url, If_None_Match=headers["ETag"])[0] == 200
        assert fetch(url, If_Modified_Since=headers["Last-Modified"])[0] == 200

    def test_rewritten_markup_is_another_page_until_it_is_back(self, sites: dict[str, str]) -> None:
        url = sites["books"] + "catalogue/page-2.html"
        _, headers, body = fetch(url)
        control(sites["books"], rewrites={"product_pod": "product-card", "star-rating": "stars"})
        status, rewritten, other = fetch(url, If_None_Match=headers["ETag"])
        assert (status, other) == (
            200,
            body.replace(b"product_pod", b"product-card").replace(b"star-rating", b"stars"),
        )
        assert rewritten["ETag"] != headers["ETag"]
        assert fetch(url, If_Modified_Since=headers["Last-Modified"])[0] == 200
        control(sites["books"], rewrites={})
        assert fetch(url, If_None_Match=headers["ETag"])[0] == 304

    def test_refusals_say_when_to_come_back(self, sites: dict[str, str]) -> None:
        fault = {"kind": "status", "status": 429, "retry_after_seconds": 7, "times": 1}
        control(sites["pypi_releases"], faults=[fault])
        url = sites["pypi_releases"] + FEED_PATHS["pypi_releases"]
        status, headers, _ = fetch(url)
        assert (status, headers["Retry-After"]) == (429, "7")
        assert fetch(url)[0] == 200

    def test_a_partial_answer_declares_the_whole_length(self, sites: dict[str, str]) -> None:
        control(sites["books"], faults=[{"kind": "partial"}])
        with pytest.raises(IncompleteRead) as caught:
            fetch(sites["books"])
        sent = len(caught.value.partial)
        assert caught.value.expected is not None
        assert abs(caught.value.expected - sent) <= 1
        assert requests_served(sites["books"])["bytes_sent"] == sent

    def test_a_dropped_connection_gives_no_answer(self, sites: dict[str, str]) -> None:
        control(sites["books"], faults=[{"kind": "drop"}])
        with pytest.raises(OSError):  # noqa: PT011
            fetch(sites["books"])
        assert requests_served(sites["books"])["by_fault"] == {"drop": 1}

    @pytest.mark.parametrize(
        ("order", "message"),
        [
            ({"revision": 0}, "revision=0; allowed: an integer from 1"),
            ({"share": 2}, "share=2; allowed: a number from 0 to 1"),
            ({"rewrites": {"a": 1}}, "allowed: an object of texts"),
            ({"rewrites": {"": "a"}}, "none of them in place of ''"),
            ({"faults": "all"}, "allowed: a list of objects"),
            ({"robots": 1}, "robots=1; allowed: a text, or null"),
            ({"validators": "some"}, "validators='some'; allowed: both, tag, date, none"),
            ({"speed": 1}, "any of faults, revision, rewrites, robots, share, validators"),
        ],
    )
    def test_a_bad_order_is_refused_with_the_allowed_form(
        self, order: dict[str, Any], message: str, sites: dict[str, str]
    ) -> None:
        with pytest.raises(SitesError, match=message):
            control(sites["books"], **order)


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_it_with_status_0(self, number: signal.Signals, tmp_path: Path) -> None:
        port_file = tmp_path / "ports"
        command = [sys.executable, "-m", "demo.sites", "--scale", "small"]
        with subprocess.Popen(
            [*command, "--port-file", str(port_file)], stdout=subprocess.PIPE, cwd=REPOSITORY
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            process.send_signal(number)
            assert process.wait(10) == 0
        assert json.loads(line).keys() == COUNTS.keys()
        assert port_file.read_bytes() == line

    def test_it_ends_when_its_parent_does(self) -> None:
        command = [sys.executable, "-m", "demo.sites", "--scale", "small", "--until-input-ends"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdout.readline()
            process.stdin.close()
            assert process.wait(10) == 0

    def test_it_stops_when_the_body_of_the_context_fails(self) -> None:
        addresses: dict[str, str] = {}
        with (  # noqa: PT012
            pytest.raises(RuntimeError, match="on purpose"),
            running_sites(scale="small") as found,
        ):
            addresses.update(found)
            raise RuntimeError("on purpose")
        with pytest.raises(OSError, match="refused"):
            fetch(addresses["books"])

    def test_a_start_that_fails_says_how_to_see_why(self, tmp_path: Path) -> None:
        with (
            pytest.raises(SitesError, match=r"exited with 2; run python -m demo\.sites"),
            running_sites(python_docs_dir=tmp_path),
        ):
            pass
