"""The local sites: the same seed gives the same pages, and a revision changes what it says."""

from collections.abc import Callable, Hashable
from dataclasses import astuple
from pathlib import Path

import pytest
from parsel import Selector

from demo.sites.books import BooksSite
from demo.sites.earthquakes import EarthquakesSite
from demo.sites.faults import Fault, FaultError, FaultPlan, parse_faults
from demo.sites.page import LocalSite
from demo.sites.pypi_releases import PypiReleasesSite
from demo.sites.python_docs import PythonDocsDirectory, PythonDocsSite
from demo.sites.revision import FIRST, Revision, changed_count, last_changes
from demo.sites.server import SCALES, gzip_tag, local_sites, represent

SEED = 7
SECOND = Revision(2, 0.05)

ItemsOfSite = dict[Hashable, Hashable]


def books(revision: Revision) -> ItemsOfSite:
    return {book.upc: astuple(book) for book in BooksSite(SEED, 200).books(revision)}


def earthquakes(revision: Revision) -> ItemsOfSite:
    features = EarthquakesSite(SEED, 200).features(revision)
    return {feature["id"]: feature["properties"]["updated"] for feature in features}


def releases(revision: Revision) -> ItemsOfSite:
    shown = PypiReleasesSite(SEED, 200).releases(revision)
    return {(release.project, release.version): astuple(release) for release in shown}


def documentation(revision: Revision) -> ItemsOfSite:
    site = PythonDocsSite(SEED, 40)
    return {name: body(site, f"/3/library/{name}.html", revision) for name in site.modules}


def body(site: LocalSite, path: str, revision: Revision = FIRST) -> bytes:
    page = site.page(path, revision)
    assert page is not None, path
    return page.body


@pytest.mark.parametrize("items", [books, earthquakes, releases, documentation])
class TestRevision:
    def test_changes_exactly_the_share(self, items: Callable[[Revision], ItemsOfSite]) -> None:
        first, second = items(FIRST), items(SECOND)
        changed = [key for key, item in second.items() if first.get(key) != item]
        assert len(changed) == changed_count(len(first), SECOND.share)
        assert len(second) == len(first)

    def test_can_be_taken_back(self, items: Callable[[Revision], ItemsOfSite]) -> None:
        before = items(FIRST)
        items(SECOND)
        assert items(Revision(1, 0.05)) == before


def test_the_next_revision_changes_the_share_again() -> None:
    second = last_changes("books", SEED, 100, Revision(2, 0.1))
    third = last_changes("books", SEED, 100, Revision(3, 0.1))
    assert sum(before != after for before, after in zip(second, third, strict=True)) == 10


def test_a_share_of_everything_and_of_nothing() -> None:
    assert set(last_changes("books", SEED, 30, Revision(4, 1.0))) == {4}
    assert set(last_changes("books", SEED, 30, Revision(4, 0.0))) == {1}


def paths_of(site: LocalSite) -> list[str]:
    return {
        "books": ["/", "/catalogue/page-2.html"],
        "python_docs": ["/3/py-modindex.html", "/robots.txt"],
        "earthquakes": ["/earthquakes/feed/v1.0/summary/all_day.geojson", "/robots.txt"],
        "pypi_releases": ["/rss/updates.xml", "/robots.txt"],
    }[site.name]


def test_pages_depend_on_the_seed_and_on_nothing_else() -> None:
    for one, again, other in zip(*(local_sites(seed, SCALES["small"]) for seed in (1, 1, 2)), strict=True):
        first, second = paths_of(one)
        assert body(one, first) == body(again, first)
        assert body(one, second) == body(again, second)
        assert body(one, first) != body(other, first)


def test_paths_that_are_not_there() -> None:
    for site in local_sites(SEED, SCALES["small"]):
        assert site.page("/nothing/here.html", FIRST) is None
    assert BooksSite(SEED, 60).page("/catalogue/page-4.html", FIRST) is None
    assert BooksSite(SEED, 60).page("/robots.txt", FIRST) is None


class TestBooks:
    def test_listing_shows_twenty_books_with_relative_links(self) -> None:
        page = Selector(body(BooksSite(SEED, 60), "/catalogue/page-2.html").decode())
        links = page.css("article.product_pod h3 a::attr(href)").getall()
        assert len(links) == 20
        assert not any(link.startswith(("/", "http", "catalogue")) for link in links)
        assert page.css("li.next a::attr(href)").get() == "page-3.html"

    def test_the_full_catalogue_has_the_oddities_of_the_real_one(self) -> None:
        shown = BooksSite(1, 1000).books()
        assert len({book.upc for book in shown}) == 1000
        assert 0 < sum(book.description is None for book in shown) < 30
        assert sum(not book.title.isascii() for book in shown) > 100


class TestEarthquakes:
    def test_some_magnitudes_are_missing_or_negative(self) -> None:
        magnitudes = [feature["properties"]["mag"] for feature in EarthquakesSite(1, 250).features()]
        assert None in magnitudes
        assert any(magnitude is not None and magnitude < 0 for magnitude in magnitudes)

    def test_the_content_type_names_no_charset(self) -> None:
        site = EarthquakesSite(SEED, 5)
        page = site.page("/earthquakes/feed/v1.0/summary/all_day.geojson", FIRST)
        assert page is not None
        assert page.content_type == "application/json"


class TestPythonDocs:
    def test_sizes_are_those_of_the_real_pages(self) -> None:
        site = PythonDocsSite(1, 300)
        sizes = sorted(len(body(site, f"/3/library/{name}.html")) for name in site.modules)
        assert 9_000 < sizes[150] < 15_000
        assert 100_000 < sizes[-5] < 300_000

    def test_the_index_lists_every_page_and_some_that_are_elsewhere(self) -> None:
        site = PythonDocsSite(SEED, 50)
        index = Selector(body(site, "/3/py-modindex.html").decode())
        links = index.css("table.modindextable a::attr(href)").getall()
        pages = {link.partition("#")[0] for link in links}
        assert {f"library/{name}.html" for name in site.modules} < pages
        assert len(links) > len(pages)

    def test_a_directory_without_the_documentation_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"has no py-modindex\.html.*python3-doc"):
            PythonDocsDirectory(tmp_path)

    def test_a_directory_serves_nothing_outside_itself(self, tmp_path: Path) -> None:
        docs = tmp_path / "html"
        docs.mkdir()
        (docs / "py-modindex.html").write_text("index")
        (tmp_path / "secret.html").write_text("secret")
        site = PythonDocsDirectory(docs)
        assert body(site, "/3/py-modindex.html") == b"index"
        assert site.page("/3/../secret.html", FIRST) is None
        assert site.page(f"/3/{tmp_path}/secret.html", FIRST) is None


class TestValidators:
    def test_strong_and_weak_tags_both_occur(self) -> None:
        page = EarthquakesSite(SEED, 5).page("/robots.txt", FIRST)
        assert page is not None
        tags = [represent(page, f"/{number}").tag for number in range(20)]
        assert 0 < sum(tag.startswith("W/") for tag in tags) < 20

    def test_a_strong_tag_differs_from_that_of_the_compressed_form(self) -> None:
        assert gzip_tag('"abc"') == '"abc-gzip"'
        assert gzip_tag('W/"abc"') == 'W/"abc"'


class TestFaults:
    def test_a_fault_strikes_so_many_times_on_each_path(self) -> None:
        plan = FaultPlan(SEED, [Fault("status", times=2)])
        assert [len(plan.strike("/a")) for _ in range(4)] == [1, 1, 0, 0]
        assert len(plan.strike("/b")) == 1

    def test_a_share_of_the_paths_is_chosen_by_the_seed(self) -> None:
        paths = [f"/page-{number}" for number in range(1000)]
        chosen = {path for path in paths if FaultPlan(SEED, [Fault("drop", 0.2)]).strike(path)}
        again = {path for path in paths if FaultPlan(SEED, [Fault("drop", 0.2)]).strike(path)}
        other = {path for path in paths if FaultPlan(8, [Fault("drop", 0.2)]).strike(path)}
        assert 150 < len(chosen) < 250
        assert chosen == again != other

    def test_delays_add_to_another_fault_but_two_others_do_not_meet(self) -> None:
        plan = FaultPlan(SEED, [Fault("drop"), Fault("delay", delay_seconds=1), Fault("partial")])
        assert [fault.kind for fault in plan.strike("/")] == ["drop", "delay"]

    def test_robots_are_spared_unless_named(self) -> None:
        assert FaultPlan(SEED, [Fault("drop")]).strike("/robots.txt") == []
        assert FaultPlan(SEED, [Fault("drop", paths="robots")]).strike("/robots.txt") != []

    @pytest.mark.parametrize(
        ("description", "message"),
        [
            ({"kind": "explode"}, "allowed: delay, status, challenge, partial, drop"),
            ({"kind": "drop", "share": 2}, "allowed: 0 to 1"),
            ({"kind": "drop", "times": 0}, "allowed: 1 or more"),
            ({"kind": "status", "status": 200}, "allowed: 400 to 599"),
            ({"kind": "status", "retry_after": "soon"}, "allowed: seconds, date, none"),
            ({"kind": "drop", "paths": "("}, "not a regular expression"),
            ({"kind": "drop", "share": "half"}, "wrong type"),
            ({"kind": "drop", "speed": 1}, "allowed: an object with kind and any of"),
            ("drop", "allowed: an object"),
        ],
    )
    def test_a_bad_description_is_refused_with_the_allowed_form(
        self, description: object, message: str
    ) -> None:
        with pytest.raises(FaultError, match=message):
            parse_faults([description])
