"""What a run fails to fetch: counted by kind, kept if it may pass, and tried again by later runs."""

import ast
import json
import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.e2e.spiders.errands import RAISES
from tests.support.crawls import TEST_SPIDERS, Host
from tests.support.page_server import Answer, PageServer

pytestmark = pytest.mark.e2e

NOT_GZIP = Answer(b"not gzip", headers={"Content-Encoding": "gzip"})
TO_ITSELF = Answer(status=302, headers={"Location": "/loop"})
CHALLENGE = Answer(b"Just a moment...", headers={"cf-mitigated": "challenge"})
# Late enough for every request of a run to wait for it.
ROBOTS = Answer(b"User-agent: *\nDisallow: /private\n", delay_seconds=0.5)
FAULTS = {
    "/ok": (Answer(b"ok"), ""),
    "/500": (Answer(status=500), "broken/server_error"),
    "/503": (Answer(status=503), "broken/unavailable"),
    "/loop": (TO_ITSELF, "broken/redirects"),
    "/packed": (NOT_GZIP, "broken/garbled"),
    "/403": (Answer(status=403), "blocked/refused"),
    "/429": (Answer(status=429), "blocked/too_many_requests"),
    "/challenge": (CHALLENGE, "blocked/challenged"),
    "/404": (Answer(status=404), "gone/not_found"),
    "/410": (Answer(status=410), "gone/removed"),
    "/401": (Answer(status=401), "forbidden/login"),
    "/private": (Answer(b"ok"), "forbidden/robots"),
    "/400": (Answer(status=400), "unusable/status"),
}
MAY_PASS = [path for path, (_answer, failure) in FAULTS.items() if failure.startswith(("broken", "blocked"))]
REPEATED = ("/500", "/503", "/429")


@pytest.fixture
def site() -> Iterator[PageServer]:
    with PageServer({"/robots.txt": ROBOTS}) as server:
        yield server


def errands(site: PageServer, *paths: str, spider: str = "errands", **arguments: object) -> tuple[str, ...]:
    """Return the command line of a run that is sent for these paths."""
    given = {"base_url": site.url.rstrip("/"), "paths": " ".join(paths)} | arguments
    return (
        spider,
        *TEST_SPIDERS,
        *(text for name, value in given.items() for text in ("-a", f"{name}={value}")),
    )


def stats_of(log: str) -> dict[str, Any]:
    """Return the stats that Scrapy dumps at the end, of the project's own."""
    dump = log[log.index("Dumping Scrapy stats:") :]
    own = re.findall(r"'(crawler/[^']*)': (\d+)", dump)
    return {name: ast.literal_eval(value) for name, value in own}


def waiting(host: Host) -> dict[str, dict[str, Any]]:
    """Return what the ledger holds, by path."""
    rows = host.report("failed", "list")["requests"]
    return {"/" + row["url"].split("/", 3)[3]: row for row in rows}


def stored(host: Host) -> dict[int, dict[str, Any]]:
    return {data["number"]: data for (data,) in host.query("SELECT data FROM scraped_data")}


def test_what_fails_is_counted_by_kind_and_what_may_pass_is_tried_again(host: Host, site: PageServer) -> None:
    site.answers |= {path: answer for path, (answer, _failure) in FAULTS.items()}
    done = host.crawl(*errands(site, *FAULTS))
    assert done.status == 0, done.err

    stats = stats_of(done.err)
    expected = {f"crawler/failures/{failure}": 1 for _answer, failure in FAULTS.values() if failure}
    assert {name: stats[name] for name in stats if "/failures/" in name} == expected
    assert stats["crawler/pages/settled"] == 1, "what an errback was called for is no page"
    asked = Counter(site.paths)
    assert {path: asked[path] for path in REPEATED} == dict.fromkeys(REPEATED, 3)
    once = set(FAULTS) - set(REPEATED) - {"/loop", "/private"}
    assert {path: asked[path] for path in once} == dict.fromkeys(once, 1)
    assert asked["/private"] == 0
    # Scrapy filters a redirect to where it came from, and tells nobody.
    assert done.err.count("errback of") == len(FAULTS) - len(("/ok", "/loop"))
    counts = host.run().counts
    assert (counts.blocked, counts.broken, counts.gone, counts.forbidden, counts.unusable) == (3, 4, 2, 2, 1)
    assert "failed to fetch 12 pages: 3 blocked, 4 broken, 2 gone, 2 forbidden, 1 unusable" in done.err
    [(job,)] = host.query("SELECT stats FROM crawler_jobs")
    assert (job["blocked"], job["broken"]) == (3, 4)
    assert sorted(stored(host)) == [0]

    rows = waiting(host)
    assert set(rows) - {"/loop"} == set(MAY_PASS) - {"/loop"}
    assert {row["attempts"] for row in rows.values()} == {1}
    assert f"{rows['/403']['kind']}/{rows['/403']['reason']}" == "blocked/refused"
    assert stats["crawler/failed_requests/kept"] == len(MAY_PASS) == len(rows)

    site.requests.clear()
    assert host.crawl(*errands(site)).status == 0
    assert site.paths == [], "nothing is due yet"

    assert host.report("failed", "retry", "--source", "errands") == {"due": len(MAY_PASS)}
    site.answers |= {path: Answer(b"ok") for path in ("/500", "/403", "/packed", "/elsewhere")}
    site.answers |= {"/503": Answer(status=404), "/429": Answer(RAISES)}
    site.answers["/loop"] = Answer(status=302, headers={"Location": "/elsewhere"})
    done = host.crawl(*errands(site))
    assert done.status == 0, done.err
    stats = stats_of(done.err)
    assert stats["crawler/failed_requests/retried"] == len(MAY_PASS)
    assert stats["crawler/failed_requests/recovered"] == 4
    assert stats["crawler/failed_requests/given_up"] == 1
    rows = waiting(host)
    assert {path: (row["attempts"], row["kind"]) for path, row in rows.items()} == {
        "/challenge": (2, "blocked"),
        "/429": (2, "unfinished"),
    }
    numbers = {path: number for number, path in enumerate(FAULTS)}
    items = stored(host)
    assert set(items) == {numbers[path] for path in ("/ok", "/500", "/403", "/packed", "/loop")}
    for number, item in items.items():
        assert (item["text"], item["note"], item["header"]) == (f"errand {number}", [number], str(number))
    assert items[numbers["/loop"]]["url"].endswith("/elsewhere")
    assert host.report("spool", "status")["findings"] == []


def test_a_run_that_asks_by_itself_is_not_sent_twice_and_settles_what_failed(
    host: Host, site: PageServer
) -> None:
    paths = ("/a", "/b", "/moved")
    site.answers |= dict.fromkeys(paths, Answer(status=500))
    assert host.crawl(*errands(site, *paths)).status == 0
    assert set(waiting(host)) == set(paths)
    host.report("failed", "retry")

    site.answers |= {"/a": Answer(b"ok"), "/b": Answer(status=403), "/new": Answer(b"ok")}
    site.answers["/moved"] = Answer(status=301, headers={"Location": "/new"})
    site.requests.clear()
    done = host.crawl(*errands(site, *paths))
    assert done.status == 0, done.err
    assert Counter(site.paths) == {"/robots.txt": 1, "/a": 1, "/b": 1, "/moved": 1, "/new": 1}
    [(path, row)] = waiting(host).items()
    assert (path, row["attempts"], row["kind"]) == ("/b", 2, "blocked")
    assert stats_of(done.err)["crawler/failed_requests/recovered"] == 2


@pytest.mark.slow
def test_a_page_that_has_not_changed_meanwhile_is_no_longer_waited_for(
    lonely_host: Host, site: PageServer
) -> None:
    site.answers["/a"] = Answer(b"ok", headers={"ETag": '"1"'})
    assert lonely_host.crawl(*errands(site, "/a", spider="reminders")).status == 0
    site.answers["/a"] = Answer(status=500)
    assert lonely_host.crawl(*errands(site, "/a", spider="reminders")).status == 0
    assert set(waiting(lonely_host)) == {"/a"}
    lonely_host.report("failed", "retry")

    site.answers["/a"] = Answer(status=304, headers={"ETag": '"1"'})
    done = lonely_host.crawl(*errands(site, spider="reminders"))
    assert done.status == 0, done.err
    stats = stats_of(done.err)
    assert stats["crawler/pages/not_modified"] == stats["crawler/failed_requests/recovered"] == 1
    assert waiting(lonely_host) == {}


def rewrite(host: Host, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change the text of every kept request; None leaves half of it, as a bad card does."""
    with closing(sqlite3.connect(host.state_dir / "failed.sqlite")) as file, file:
        for row_id, text in file.execute("SELECT id, request FROM request").fetchall():
            changed = change(json.loads(text))
            new = text[: len(text) // 2] if changed is None else json.dumps(changed)
            file.execute("UPDATE request SET request = ?, next_try_at = 0 WHERE id = ?", (new, row_id))


def test_what_cannot_be_made_again_is_dropped_and_said(lonely_host: Host, site: PageServer) -> None:
    site.answers |= dict.fromkeys(("/a", "/b", "/c"), Answer(status=500))
    assert lonely_host.crawl(*errands(site, "/a", "/b", "/c")).status == 0

    def change(fields: dict[str, Any]) -> dict[str, Any] | None:
        if fields["url"].endswith("/a"):
            return fields | {"callback": "parse_no_more"}
        return None if fields["url"].endswith("/b") else fields

    rewrite(lonely_host, change)
    site.answers["/c"] = Answer(b"ok")
    done = lonely_host.crawl(*errands(site))
    assert done.status == 0, done.err
    assert "/a: the spider 'errands' has no method 'parse_no_more' any more" in done.err
    assert "/b: its text cannot be read" in done.err
    assert lonely_host.run().counts.scraped == 1
    assert waiting(lonely_host) == {}
    assert stats_of(done.err)["crawler/failed_requests/given_up"] == 2


@pytest.mark.slow
def test_a_request_without_a_json_form_is_counted_and_said_once(lonely_host: Host, site: PageServer) -> None:
    site.answers |= dict.fromkeys(("/a", "/b"), Answer(status=500))
    done = lonely_host.crawl(*errands(site, "/a", "/b", unfaithful=1))
    assert done.status == 0, done.err
    assert done.err.count("A failed request cannot be kept for later runs") == 1
    assert "has a value in meta or cb_kwargs that JSON would change" in done.err
    assert stats_of(done.err)["crawler/failed_requests/not_kept"] == 2
    assert lonely_host.run().counts.broken == 2
    assert waiting(lonely_host) == {}


@pytest.mark.slow
def test_a_ledger_that_cannot_be_opened_costs_a_warning_and_no_page(
    lonely_host: Host, site: PageServer
) -> None:
    (lonely_host.state_dir / "failed.sqlite").mkdir(parents=True)
    site.answers |= {"/a": Answer(status=500), "/b": Answer(b"ok")}
    done = lonely_host.crawl(*errands(site, "/a", "/b"))
    assert done.status == 0, done.err
    assert "What failed is not kept for later runs" in done.err
    assert lonely_host.run().counts.scraped == 1
    assert lonely_host.scrapy("failed", "list").status == 1


@pytest.mark.slow
def test_a_signal_ends_the_pause_before_a_repeat(lonely_host: Host, site: PageServer) -> None:
    site.answers["/a"] = Answer(status=500)
    with lonely_host.crawling(*errands(site, "/a"), "-s", "RETRY_DELAY_SECONDS=3600") as crawl:
        crawl.wait_until(lambda: "/a" in site.paths)
        crawl.send(signal.SIGTERM)
        done = crawl.end(15.0)
    assert done.status == 0, done.err
    assert "Something of this crawl did not stop" not in done.err
    assert "Spider closed (shutdown)" in done.err
    assert site.paths.count("/a") == 1


@pytest.mark.slow
def test_what_an_operator_may_say(lonely_host: Host) -> None:
    for arguments, status, said in (
        (("list",), 0, "0 failed requests"),
        (("retry", "3"), 1, "0 failed requests are due"),
        (("forget",), 2, "forget deletes for good; allowed: IDs, --source NAME, or --all"),
        (("forget", "--all"), 0, "0 failed requests are forgotten"),
        (("mend",), 2, "invalid choice: 'mend'"),
        (("--help",), 0, "scrapy failed list --source books"),
    ):
        done = lonely_host.scrapy("failed", *arguments)
        assert (done.status, said in re.sub(r"\s+", " ", done.said)) == (status, True), done.said
