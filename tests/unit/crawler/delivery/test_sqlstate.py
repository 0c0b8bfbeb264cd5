"""Errors are classified by SQLSTATE, never by exception class."""

import pytest

from crawler.delivery.sqlstate import Meaning, login_sqlstate, meaning_of, remedy_for

CASES = {
    Meaning.ROW_REFUSED: "22001 22003 22021 22P02 22P05 23502 23505 23514 54000 54001",
    Meaning.OPERATOR_NEEDED: "42P01 42703 42501 42P10 28000 28P01 3D000 3F000 0A000 21000 P0001",
    Meaning.TIMED_OUT: "57014",
    Meaning.UNAVAILABLE: "08000 08006 25006 40001 40P01 53100 53300 55P03 57P01 57P03 58030 XX000 99999",
}


@pytest.mark.parametrize(
    ("sqlstate", "meaning"), [(code, meaning) for meaning, codes in CASES.items() for code in codes.split()]
)
def test_each_code_has_its_meaning(sqlstate: str, meaning: Meaning) -> None:
    assert meaning_of(sqlstate) is meaning


def test_a_connection_that_ended_without_a_code_is_unavailable() -> None:
    assert meaning_of(None) is Meaning.UNAVAILABLE


@pytest.mark.parametrize("sqlstate", ["42P01", "42703", "42501", "28P01", "28000", "3D000", "3F000"])
def test_an_operators_mistake_comes_with_its_own_remedy(sqlstate: str) -> None:
    assert remedy_for(sqlstate) != remedy_for("99999")


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        ('FATAL:  password authentication failed for user "crawler"', "28P01"),
        ("fe_sendauth: no password supplied", "28P01"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.9", user "crawler"', "28000"),
        ('FATAL:  role "crawler" does not exist', "28000"),
        ('FATAL:  database "crawler" does not exist', "3D000"),
        ('FATAL:  permission denied for database "crawler"', "42501"),
        ("Connection refused", None),
        ("timeout expired", None),
        ("FATAL:  the database system is starting up", None),
        ("FATAL:  sorry, too many clients already", None),
    ],
)
def test_a_refused_login_is_told_by_its_text(message: str, sqlstate: str | None) -> None:
    prefix = 'connection to server at "10.0.0.2", port 5432 failed: '
    assert login_sqlstate(prefix + message) == sqlstate
