"""Whole crawls in a storm of random faults: killed at any moment, while PostgreSQL and the network fail."""

from collections.abc import Callable
from typing import Any

import pytest

from demo.postgres import PostgresServer
from tests.e2e.components import PHASES
from tests.faults.conftest import Form
from tests.support.crawls import Host
from tests.support.delivery import chosen_seed, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.storm import Quota, Storm, Verdict
from tests.support.tcp_proxy import TcpProxy

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.long]

FAULT = "end to end: crawls killed, PostgreSQL killed, connections broken"
MakeStorm = Callable[..., Storm]


@pytest.fixture
def make_storm(host: Host, proxied_url: str, postgres: PostgresServer, postgres_proxy: TcpProxy) -> MakeStorm:
    """Return storms over a host whose way to PostgreSQL can be tampered with."""

    def make(**options: Any) -> Storm:
        beaten = Host(host.folder, proxied_url)
        return Storm(beaten, postgres, postgres_proxy, seeded(FAULT), **options)

    return make


@pytest.mark.timeout(1800)
def test_a_storm_of_faults_loses_nothing_and_stores_nothing_twice(
    make_storm: MakeStorm, form: Form, fault_report: FaultReport
) -> None:
    storm = make_storm()
    quota = Quota(200, 25, 100, 40_000) if form.is_full else Quota(4, 1, 2, 500)
    storm.rage(quota, at_most_seconds=form.pick(short=90, full=1500))
    storm.settle()
    verdict = storm.verdict()
    live = verdict.stored - verdict.drained
    figures = (
        f"{storm.seconds:.0f} s, {storm.fair_share:.0%} of them with PostgreSQL up and undisturbed; "
        f"{live:,} items stored live, {verdict.drained:,} spooled first, full {storm.times_full} times; "
        f"{verdict.poison} rows refused by PostgreSQL, {verdict.letters} dead letters"
    )
    print(storm.thrown(), verdict, figures)
    assert verdict.is_clean, verdict
    assert storm.findings() == []
    if form.is_full:
        assert storm.fair_share >= 0.5
        assert set(storm.kills()) == set(PHASES)
        assert live > verdict.stored / 2
        assert storm.times_full
        assert verdict.poison
    fault_report.trials.append(
        Trial(
            FAULT,
            form.name,
            chosen_seed(),
            storm.thrown(),
            verdict.items,
            verdict.lost,
            verdict.twice,
            verdict.wrong + verdict.misjudged,
            figures=figures,
        )
    )


def test_control_plain_insert_stores_items_twice(
    make_storm: MakeStorm, host: Host, fault_report: FaultReport
) -> None:
    host.query("DROP INDEX scraped_data_versions")
    verdict = after(
        make_storm(kinds=["acknowledgements swallowed"], extensions=["saboteurs.PlainInsert"]),
        Quota(4, 0, 2, 500),
    )
    assert verdict.twice
    assert not verdict.lost
    enter(fault_report, "the comparison with what is stored: plain INSERT", verdict)


def test_control_forgetting_a_batch_before_its_commit_loses_items(
    make_storm: MakeStorm, fault_report: FaultReport
) -> None:
    verdict = after(
        make_storm(kinds=["cut in the middle"], extensions=["saboteurs.ForgetsFirst"]), Quota(6, 2, 2, 500)
    )
    assert verdict.lost
    assert not verdict.twice
    enter(fault_report, "the drainer forgets a batch only after its commit", verdict)


def test_control_noting_a_page_when_it_yields_loses_items(
    make_storm: MakeStorm, fault_report: FaultReport
) -> None:
    verdict = after(make_storm(memory="saboteurs.HastyPageMemory"), Quota(6, 0, 0, 500))
    assert verdict.lost
    assert not verdict.twice
    enter(fault_report, "a page counts as seen only when its items are safe", verdict)


def after(storm: Storm, quota: Quota) -> Verdict:
    """Return what is true after a storm."""
    storm.rage(quota, at_most_seconds=90)
    storm.settle()
    print(storm.thrown(), storm.verdict())
    return storm.verdict()


def enter(fault_report: FaultReport, safety_taken_off: str, verdict: Verdict) -> None:
    outcome = f"of {verdict.items:,} items {verdict.lost:,} lost, {verdict.twice:,} stored twice"
    fault_report.controls.append(Control(FAULT, safety_taken_off, outcome))
