"""A page counts as seen only when all its items have left RAM and its callback ended well."""

import pytest

from crawler.tickets import Ticket


def ticket_of(items: int) -> tuple[Ticket, list[bool]]:
    seen: list[bool] = []
    ticket = Ticket(seen.append)
    for _ in range(items):
        ticket.issue()
    return ticket, seen


def test_settles_once_when_the_last_item_is_safe() -> None:
    ticket, seen = ticket_of(3)
    ticket.close(complete=True)
    ticket.redeem(2)
    assert seen == []
    ticket.redeem()
    assert seen == [True]


def test_settles_at_the_end_of_the_callback_if_its_items_are_safe_before() -> None:
    ticket, seen = ticket_of(1)
    ticket.redeem()
    assert seen == []
    ticket.issue()
    ticket.redeem()
    assert seen == []
    ticket.close(complete=True)
    assert seen == [True]


@pytest.mark.parametrize("complete", [True, False])
def test_a_page_without_items_settles_as_its_callback_ended(complete: bool) -> None:
    ticket, seen = ticket_of(0)
    ticket.close(complete=complete)
    assert seen == [complete]


def test_one_void_item_is_enough_for_not_seen() -> None:
    ticket, seen = ticket_of(2)
    ticket.void()
    ticket.redeem()
    ticket.close(complete=True)
    assert seen == [False]


def test_a_callback_that_failed_half_way_is_not_seen_though_its_items_are_safe() -> None:
    ticket, seen = ticket_of(2)
    ticket.close(complete=False)
    ticket.redeem(2)
    assert seen == [False]
