"""What is odd about a run, from which figures on, and what of it is only chance or on purpose."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from math import comb
from statistics import mean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.drift import comparison
from crawler.drift.comparison import (
    CAUSES_IN_WORDS,
    RUNS_NEEDED,
    Cause,
    Finding,
    Kind,
    Profile,
    Review,
    Share,
    Thresholds,
    cause_of,
    chance_of,
    comparable,
    findings,
    is_risen,
    problems_of_thresholds,
    reviewed,
    usual_coverage,
)

SITE = "https://shop.example/"
NOON = datetime(2026, 5, 20, 12, tzinfo=UTC).timestamp()
DAY = timedelta(days=1).total_seconds()
DEFAULTS = Thresholds()
OFF = Thresholds(items=None, page_bytes=None, errors=None, empty_pages=None, dead_letters=None, fields=None)


def fields_of(items: int, **filled: int) -> dict[str, tuple[int, dict[str, int]]]:
    return {"Book": (items, {"url": items, **filled})}


def good(**changed: Any) -> Profile:
    """A run over a shop of a thousand books."""
    usual: dict[str, Any] = {
        "site": SITE,
        "link_pages": 50,
        "item_pages": 1000,
        "items": 1000,
        "page_bytes": 9_000_000,
        "filled": fields_of(1000, price=1000, description=990),
    }
    return Profile(**usual | changed)


def incremental(new: int = 2, **changed: Any) -> Profile:
    """A run that the page memory let fetch no more than the new books."""
    return good(
        **{
            "item_pages": new,
            "items": new,
            "spared_pages": 1000 - new,
            "page_bytes": new * 9000,
            "filled": fields_of(new, price=new, description=new) if new else {},
            **changed,
        }
    )


def found(
    profile: Profile, history: Sequence[Profile] = (good(),) * 5, thresholds: Thresholds = DEFAULTS
) -> list[tuple[Kind, Cause, str]]:
    return [(each.kind, each.cause, each.subject) for each in findings(profile, history, thresholds)]


def reviews(*profiles: Profile, odd: Sequence[int] = ()) -> list[Review]:
    """One run a day until yesterday; those with the numbers ``odd`` had findings."""
    finding = Finding(Kind.ERRORS, Cause.BROKEN, "pages", 1.0, 0.0, "text")
    return [
        Review(NOON - DAY * (len(profiles) - number), profile, 3, (finding,) if number in odd else ())
        for number, profile in enumerate(profiles)
    ]


# -- what is odd -----------------------------------------------------------------------------------

BLOCKED = {"item_pages": 0, "items": 0, "filled": {}, "page_bytes": 0, "failed": {"blocked/refused": 1000}}
RENAMED = {"item_pages": 0, "items": 0, "filled": {}, "empty_pages": 1000}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        (BLOCKED, [(Kind.ZERO_ITEMS, Cause.BLOCKED, "items")]),
        (
            BLOCKED | {"link_pages": 0, "failed": {"broken/dns": 1}},
            [(Kind.ZERO_ITEMS, Cause.DNS, "items")],
        ),
        (
            BLOCKED | {"link_pages": 0, "failed": {"broken/connection_refused": 1}},
            [(Kind.ZERO_ITEMS, Cause.UNREACHABLE, "items")],
        ),
        (BLOCKED | {"failed": {"broken/server_error": 9}}, [(Kind.ZERO_ITEMS, Cause.BROKEN, "items")]),
        (BLOCKED | {"failed": {"gone/not_found": 9}}, [(Kind.ZERO_ITEMS, Cause.GONE, "items")]),
        (
            BLOCKED | {"link_pages": 0, "failed": {"forbidden/robots": 1}},
            [(Kind.ZERO_ITEMS, Cause.FORBIDDEN, "items")],
        ),
        (BLOCKED | {"failed": {"of_another/version": 9}}, [(Kind.ZERO_ITEMS, Cause.UNUSABLE, "items")]),
        (RENAMED, [(Kind.ZERO_ITEMS, Cause.SITE_CHANGED, "items")]),
        (
            RENAMED | {"empty_pages": 0, "raised_pages": 1000},
            [(Kind.ZERO_ITEMS, Cause.SITE_CHANGED, "items")],
        ),
        # Its listings have only links to each other.
        (RENAMED | {"empty_pages": 0}, [(Kind.ZERO_ITEMS, Cause.SITE_CHANGED, "items")]),
        (RENAMED | {"empty_pages": 0, "link_pages": 0}, [(Kind.ZERO_ITEMS, Cause.NO_REQUESTS, "items")]),
        (
            {"items": 499, "item_pages": 499, "filled": fields_of(499), "page_bytes": 4_500_000},
            [(Kind.FEWER_ITEMS, Cause.FEWER_PAGES, "items")],
        ),
        ({"items": 500, "item_pages": 500, "filled": fields_of(500), "page_bytes": 4_500_000}, []),
        (
            {"items": 400, "item_pages": 400, "failed": {"broken/timeout": 600}, "page_bytes": 3_600_000},
            [(Kind.FEWER_ITEMS, Cause.UNREACHABLE, "items"), (Kind.ERRORS, Cause.UNREACHABLE, "pages")],
        ),
        (
            {"items": 880, "item_pages": 880, "raised_pages": 120},
            [(Kind.ERRORS, Cause.SITE_CHANGED, "pages")],
        ),
        ({"items": 910, "item_pages": 910, "raised_pages": 90}, []),
        (
            {"items": 600, "item_pages": 600, "empty_pages": 400},
            [(Kind.EMPTY_PAGES, Cause.SITE_CHANGED, "pages")],
        ),
        ({"dead": 150}, [(Kind.DEAD_LETTERS, Cause.SITE_CHANGED, "items")]),
        ({"dead": 90}, []),
        (
            {"filled": fields_of(1000, description=600, price=0)},
            [
                (Kind.FIELD_MISSING, Cause.SITE_CHANGED, "Book.price"),
                (Kind.FIELD_MISSING, Cause.SITE_CHANGED, "Book.description"),
            ],
        ),
        ({"filled": fields_of(1000, price=1000, description=700)}, []),
        ({"page_bytes": 4_000_000}, [(Kind.SMALLER_PAGES, Cause.SITE_CHANGED, "bytes")]),
        ({"page_bytes": 90_000_000, "items": 3000, "item_pages": 3000}, []),
    ],
)
def test_a_sudden_drop_is_found_with_its_likely_cause(
    changed: dict[str, Any], expected: list[tuple[Kind, Cause, str]]
) -> None:
    assert found(good(**changed)) == expected
    assert found(good(**changed), thresholds=OFF) == []


def test_a_finding_says_the_figures_and_the_cause_in_words() -> None:
    (finding,) = findings(good(filled=fields_of(1000, price=20)), [good()] * 5, Thresholds())
    assert (finding.now, finding.usual) == (0.02, 1.0)
    assert finding.sentence == (
        "20 of 1000 items have a value in Book.price; usually 100%. Likely cause: "
        "the site changed its pages, and the spider does not know them any more"
    )
    (finding,) = findings(good(**BLOCKED), [good()] * 5, Thresholds())
    assert finding.sentence == (
        "No items; usually 1000. Likely cause: the site keeps this crawler away (403, 429 or a challenge)"
    )


def test_every_cause_has_its_words() -> None:
    assert CAUSES_IN_WORDS.keys() == set(Cause)


# -- what is fetched less on purpose ---------------------------------------------------------------


def test_nothing_new_is_no_alarm() -> None:
    history = [good()] * 3 + [incremental()] * 4
    assert found(incremental(0), history) == []
    assert found(incremental(0, link_pages=0), history) == []
    # Control: were the pages that the memory spared not counted as seen, it would be one.
    assert found(replace(incremental(0), spared_pages=0), history) == [
        (Kind.ZERO_ITEMS, Cause.SITE_CHANGED, "items")
    ]


def test_less_than_usual_is_known_from_before_and_the_rest_does_not_come() -> None:
    blocked_soon = incremental(0, spared_pages=100, failed={"blocked/refused": 30})
    assert found(blocked_soon) == [
        (Kind.FEWER_ITEMS, Cause.BLOCKED, "items"),
        (Kind.ERRORS, Cause.BLOCKED, "pages"),
    ]
    (fewer, _errors) = findings(blocked_soon, [good()] * 5, Thresholds())
    assert fewer.text == "0 items and 100 pages known from before; usually 1000 items are seen"


def test_a_feed_that_has_not_changed_is_no_alarm() -> None:
    feed = good(link_pages=0, item_pages=1, items=250, page_bytes=200_000, filled=fields_of(250))
    spared = Profile(SITE, spared_pages=1)
    assert found(spared, [feed] * 4) == []
    # Runs without a word on the pages are not what a later one is compared with.
    history = comparable(reviews(*[feed] * 4, *[spared] * 30), SITE, Thresholds())
    assert history == [feed] * 4
    changed = Profile(SITE, empty_pages=1, page_bytes=200_000)
    assert found(changed, history) == [(Kind.ZERO_ITEMS, Cause.SITE_CHANGED, "items")]


def test_a_change_shows_in_the_few_pages_that_are_fetched() -> None:
    """Of 52 pages two raise: among all of them that would be chance; 50 are listings, parsed in every run."""
    history = [good()] * 3 + [incremental()] * 4
    changed = incremental(0, raised_pages=2)
    assert found(changed, history) == [(Kind.ERRORS, Cause.SITE_CHANGED, "pages")]
    # Control: one odd page among many good ones, as on any day.
    assert found(incremental(30, raised_pages=1), history) == []
    assert chance_of(Share(2, 52), 0.0) > 0.001


def test_a_month_of_nothing_new_does_not_make_the_source_unknown() -> None:
    history = [good()] * 4 + [incremental(0)] * 30
    assert found(incremental(0, raised_pages=3), history) == [(Kind.ERRORS, Cause.SITE_CHANGED, "pages")]
    few = incremental(3, filled=fields_of(3, price=0, description=3))
    assert (Kind.FIELD_MISSING, Cause.SITE_CHANGED, "Book.price") in found(few, history)


# -- chance ----------------------------------------------------------------------------------------


def test_few_items_say_little_about_a_field_that_is_often_missing() -> None:
    half = good(filled=fields_of(1000, price=1000, description=500))
    two = incremental(2, filled=fields_of(2, price=2, description=0))
    assert found(two, [half] * 5) == []
    thirty = incremental(30, filled=fields_of(30, price=30, description=0))
    assert found(thirty, [half] * 5) == [(Kind.FIELD_MISSING, Cause.SITE_CHANGED, "Book.description")]


def test_one_failed_page_of_three_is_no_finding() -> None:
    small = good(link_pages=0, item_pages=3, items=3, filled=fields_of(3))
    assert found(replace(small, item_pages=2, items=2, raised_pages=1), [small] * 9) == []
    assert found(replace(small, item_pages=1, items=1, raised_pages=2), [small] * 9) != []


@given(
    st.integers(1, 60).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))),
    st.floats(0.01, 0.99),
)
def test_the_chance_is_never_understated(so_many: tuple[int, int], usual: float) -> None:
    """Against the sum of the binomial distribution itself."""
    share = Share(*so_many)
    exact = sum(
        comb(share.total, number) * usual**number * (1 - usual) ** (share.total - number)
        for number in range(share.number, share.total + 1)
    )
    assert chance_of(share, usual) >= exact * (1 - 1e-9)


def test_the_sizes_of_a_handful_of_pages_are_not_compared() -> None:
    assert found(incremental(9, page_bytes=9 * 2000), [good()] * 5) == []
    assert found(incremental(10, page_bytes=10 * 2000), [good()] * 5) == [
        (Kind.SMALLER_PAGES, Cause.SITE_CHANGED, "bytes")
    ]


def test_quiet_weekends_are_known_after_a_few_of_them() -> None:
    busy, quiet = good(), good(items=300, item_pages=300, filled=fields_of(300), page_bytes=2_700_000)
    week = [busy] * 5 + [quiet] * 2
    assert found(quiet, [busy] * 5) == [(Kind.FEWER_ITEMS, Cause.FEWER_PAGES, "items")]
    assert found(quiet, week * 2) == []
    # Control: still less than on any weekend.
    assert found(good(items=40, item_pages=40), week * 2) == [(Kind.FEWER_ITEMS, Cause.FEWER_PAGES, "items")]


# -- the median ------------------------------------------------------------------------------------


def test_one_bad_day_in_the_history_hides_nothing_from_the_median(monkeypatch: pytest.MonkeyPatch) -> None:
    bad_day = good(item_pages=0, items=0, raised_pages=1000, filled={})
    history = [good(), bad_day, good(), good(), good()]
    today = good(items=750, item_pages=750, raised_pages=250)
    assert found(today, history) == [(Kind.ERRORS, Cause.SITE_CHANGED, "pages")]
    # Control: the mean of 0, 100, 0, 0 and 0 % takes 25 % for usual.
    monkeypatch.setattr(comparison, "median", mean)
    assert found(today, history) == []


def test_one_great_day_in_the_history_makes_no_ordinary_one_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whoever is far below the mean here is so with the median's guard against rarity taken off.
    monkeypatch.setattr(comparison, "_is_rarely_so_low", lambda _now, _past: True)
    history = [good(), good(), good(items=20_000, item_pages=20_000), good()]
    assert found(good(), history) == []
    monkeypatch.setattr(comparison, "median", mean)
    assert found(good(), history) == [(Kind.FEWER_ITEMS, Cause.FEWER_PAGES, "items")]


# -- with what a run is compared -------------------------------------------------------------------


def test_first_runs_never_alarm() -> None:
    for runs in range(RUNS_NEEDED):
        review = reviewed(good(**BLOCKED), reviews(*[good()] * runs), Thresholds(), NOON)
        assert (review.compared_with, review.findings) == (0, ())
    review = reviewed(good(**BLOCKED), reviews(*[good()] * RUNS_NEEDED), Thresholds(), NOON)
    assert review.compared_with == RUNS_NEEDED
    assert [finding.kind for finding in review.findings] == [Kind.ZERO_ITEMS]


def test_what_is_wrong_does_not_become_usual_by_lasting() -> None:
    past = reviews(*[good()] * 5)
    for day in range(40):
        review = reviewed(good(**RENAMED), past, Thresholds(), NOON + day * DAY)
        assert [finding.kind for finding in review.findings] == [Kind.ZERO_ITEMS]
        past.append(review)
    # Control: compared with all its last runs, it would be usual after two weeks.
    everything = [review.profile for review in past]
    assert findings(good(**RENAMED), everything, Thresholds()) == []


def test_what_comes_and_goes_becomes_usual() -> None:
    past = reviews(good(), good(), good(**RENAMED), good(), odd=[2])
    assert len(comparable(past, SITE, Thresholds())) == 4
    past = reviews(good(), good(), good(), good(**RENAMED), good(**RENAMED), odd=[3, 4])
    assert len(comparable(past, SITE, Thresholds())) == 3


def test_a_lasting_change_is_accepted_by_a_date() -> None:
    past = reviews(*[good()] * 5, good(**RENAMED), odd=[5])
    today = datetime.fromtimestamp(NOON, UTC).date()
    for since, compared in ((None, 5), (today - timedelta(days=3), 0), (today - timedelta(days=4), 3)):
        review = reviewed(good(**RENAMED), past, Thresholds(since=since), NOON)
        assert review.compared_with == compared
        assert bool(review.findings) == bool(compared)


def test_a_copy_of_the_site_is_another_site_and_a_run_that_saw_nothing_is_no_measure() -> None:
    copy, nothing = good(site="http://127.0.0.1:8001/"), Profile(SITE, failed={"broken/dns": 1})
    past = reviews(good(), copy, nothing, good())
    assert comparable(past, SITE, Thresholds()) == [good(), good()]
    assert comparable(past, copy.site, Thresholds()) == [copy]


def test_no_more_runs_are_compared_with_than_the_source_wants() -> None:
    before, now = good(items=3000, item_pages=3000), good(items=1400, item_pages=1400)
    past = reviews(*[before] * 12, *[good()] * 3)
    assert reviewed(now, past, Thresholds(runs=5), NOON).findings == ()
    review = reviewed(now, past, Thresholds(runs=14), NOON)
    assert (review.compared_with, [each.kind for each in review.findings]) == (14, [Kind.FEWER_ITEMS])


def test_shares_and_sizes_are_compared_with_no_more_runs_either() -> None:
    before = good(item_pages=500, items=500, raised_pages=500, page_bytes=50_000_000)
    now = good(item_pages=800, items=800, raised_pages=200)
    history = [before] * 12 + [good()] * 3
    assert [kind for kind, _, _ in found(now, history, Thresholds(runs=5))] == [Kind.ERRORS]
    assert [kind for kind, _, _ in found(now, history)] == [Kind.SMALLER_PAGES]


def test_a_field_is_usual_once_enough_runs_had_it() -> None:
    older = good(filled=fields_of(5, price=5))
    history = [older] * 4 + [good(filled=fields_of(5, price=5, stock=number)) for number in (4, 5)]
    assert usual_coverage(history, Thresholds()) == {"Book.url": 1.0, "Book.price": 1.0}
    history.append(good(filled=fields_of(5, price=5, stock=0)))
    assert usual_coverage(history, Thresholds())["Book.stock"] == 0.8


def test_one_run_that_read_all_of_a_site_that_never_changes_is_enough() -> None:
    history = [good()] + [incremental(0)] * 20
    price_gone = good(filled=fields_of(1000, price=0, description=990))
    assert found(price_gone, history) == [(Kind.FIELD_MISSING, Cause.SITE_CHANGED, "Book.price")]
    assert found(good(item_pages=0, items=0, raised_pages=1000), history) != []
    # Control: two runs over a handful are not.
    few = incremental(9, filled=fields_of(9, price=9, description=9))
    assert found(price_gone, [few] * 2 + [incremental(0)] * 20) == []


# -- thresholds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "problems"),
    [
        ({}, []),
        ({"items": 0.3, "fields": None, "runs": 20, "since": date(2026, 5, 1), "errors": 1}, []),
        (None, ["drift=None; allowed: a dict of thresholds"]),
        ([("items", 0.3)], ["allowed: a dict of thresholds"]),
        ({"itmes": 0.3}, ["drift['itmes'] is unknown; allowed: runs, since, items,"]),
        ({"items": 50}, ["drift['items']=50; allowed: a share from 0 to 1, or None"]),
        ({"items": "0.3"}, ["drift['items']='0.3'; allowed: a share"]),
        ({"items": True}, ["drift['items']=True; allowed: a share"]),
        ({"items": float("nan")}, ["drift['items']=nan; allowed: a share"]),
        ({"runs": 2}, ["drift['runs']=2; allowed: a whole number from 3 to 100"]),
        ({"runs": 5.0}, ["drift['runs']=5.0; allowed: a whole number"]),
        ({"since": "2026-05-01"}, ["drift['since']='2026-05-01'; allowed: a date"]),
        ({"since": datetime(2026, 5, 1, tzinfo=UTC)}, ["allowed: a date"]),
        ({"runs": 0, "itmes": 1, "errors": -1}, ["'itmes'", "'runs'", "'errors'"]),
    ],
    ids=repr,
)
def test_wrong_thresholds_are_named_all_at_once(given_: Any, problems: list[str]) -> None:
    found_problems = problems_of_thresholds(given_)
    assert len(found_problems) == len(problems)
    for text, problem in zip(found_problems, problems, strict=True):
        assert problem in text
    if not problems:
        assert Thresholds.of(given_) == replace(Thresholds(), **given_)


def test_a_stricter_or_laxer_threshold_is_heeded() -> None:
    today = good(items=600, item_pages=600, raised_pages=50, page_bytes=5_500_000)
    assert found(today) == []
    assert [kind for kind, _, _ in found(today, thresholds=Thresholds(items=0.7, errors=0.02))] == [
        Kind.FEWER_ITEMS,
        Kind.ERRORS,
    ]


# -- JSON, and whatever a ledger may hold ----------------------------------------------------------

NUMBERS = st.integers(0, 10**7)
FILLED = st.dictionaries(
    st.sampled_from(["Book", "dict"]),
    NUMBERS.flatmap(
        lambda items: st.tuples(
            st.just(items), st.dictionaries(st.sampled_from(["url", "price"]), st.integers(0, items))
        )
    ),
)
PROFILES = st.builds(
    Profile,
    site=st.sampled_from([SITE, ""]),
    link_pages=NUMBERS,
    item_pages=NUMBERS,
    empty_pages=NUMBERS,
    raised_pages=NUMBERS,
    spared_pages=NUMBERS,
    failed=st.dictionaries(st.sampled_from(["broken/dns", "blocked/refused", "x"]), NUMBERS),
    items=NUMBERS,
    dead=NUMBERS,
    page_bytes=NUMBERS,
    received_bytes=NUMBERS,
    filled=FILLED,
)
THRESHOLDS = st.builds(
    Thresholds,
    runs=st.integers(3, 20),
    **{
        name: st.none() | st.floats(0, 1)
        for name in ("items", "page_bytes", "errors", "empty_pages", "dead_letters", "fields")
    },
)


@given(PROFILES, st.lists(PROFILES, max_size=8), THRESHOLDS)
def test_no_figures_make_it_fail_and_a_review_survives_the_ledger(
    profile: Profile, history: list[Profile], thresholds: Thresholds
) -> None:
    review = reviewed(profile, reviews(*history), thresholds, NOON)
    assert Review.of_json(json.loads(json.dumps(review.as_json()))) == rounded(review)
    assert all(finding.sentence for finding in review.findings)
    assert reviewed(profile, reviews(*history), OFF, NOON).findings == ()


@given(PROFILES, st.integers(RUNS_NEEDED, 20))
def test_a_run_like_all_before_it_is_never_odd(profile: Profile, runs: int) -> None:
    """Whatever the source is like, all pages empty included: only a change is odd."""
    assert findings(profile, [profile] * runs, Thresholds()) == []


def rounded(review: Review) -> Review:
    return replace(
        review,
        findings=tuple(
            replace(each, now=round(each.now, 4), usual=round(each.usual, 4)) for each in review.findings
        ),
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        {},
        {"at": 1.0, "profile": {}, "compared_with": 0, "findings": []},
        {"at": "x", "profile": asdict(good()), "compared_with": 0, "findings": []},
        {"at": 1.0, "profile": asdict(good()) | {"items": "5"}, "compared_with": 0, "findings": []},
        {"at": 1.0, "profile": asdict(good()) | {"filled": {"Book": 5}}, "compared_with": 0, "findings": []},
        {"at": 1.0, "profile": asdict(good()), "compared_with": 0, "findings": [{"kind": "of_later"}]},
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_review_of_a_version_that_is_not_understood_is_none(value: Any) -> None:
    assert Review.of_json(value) is None


def test_a_review_of_a_later_version_with_more_in_it_is_read() -> None:
    value = Review(1.0, good()).as_json()
    value["profile"]["colour"] = "red"
    assert Review.of_json(value) == Review(1.0, good())


def test_causes_of_a_run_that_gave_too_little() -> None:
    assert cause_of(good(failed={"broken/dns": 2, "blocked/challenged": 5})) is Cause.BLOCKED
    # More pages came and were not understood than failed to come.
    assert cause_of(good(failed={"broken/dns": 2}, empty_pages=3)) is Cause.SITE_CHANGED


def test_a_share_of_nothing_has_not_risen() -> None:
    assert not is_risen(Share(0, 0), 0.0, 0.0)
    assert not is_risen(Share(5, 5), 0.0, None)
