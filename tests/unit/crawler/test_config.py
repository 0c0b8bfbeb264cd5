"""Settings: one readable report of every mistake, and no secret in any text."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from crawler import options
from crawler.config import Configuration, read_configuration
from crawler.exceptions import ConfigurationError

SECRET = "hunter2-s3cret"
URL = f"postgresql://crawler:{SECRET}@nas:5432/crawler"


def read(environment: Mapping[str, str], given: Mapping[str, object] | None = None) -> Configuration:
    """As Scrapy does: the environment over the defaults, the command line over both."""
    settings = {**options.defaults_and_environment(environment), **(given or {})}
    return read_configuration(settings.get, environment)


def problems(environment: Mapping[str, str], given: Mapping[str, object] | None = None) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read(environment, given)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    return caught.value.problems


def test_needs_nothing_but_a_home() -> None:
    configuration = read({})
    assert configuration.database_url is None
    assert configuration.database == "none"
    assert configuration.limits.batch_max_items == 500
    assert configuration.limits.linger_seconds == 1.0
    assert configuration.call_deadline_seconds <= 12
    assert configuration.spool_path.name == "spool.sqlite"


def test_every_default_is_allowed_by_its_own_rule() -> None:
    for setting in options.SETTINGS:
        setting.read(setting.default)


def test_the_environment_wins_over_defaults_and_the_command_line_over_both(tmp_path: Path) -> None:
    environment = {"CRAWLER_STATE_DIR": str(tmp_path), "CRAWLER_DELIVERY_BATCH_MAX_BYTES": "64K"}
    configuration = read(environment, {"DELIVERY_BATCH_MAX_ITEMS": 7})
    assert configuration.state_dir == tmp_path
    assert configuration.ledger_path.parent == tmp_path
    assert configuration.limits.batch_max_bytes == 64 * 1024
    assert configuration.limits.batch_max_items == 7


def test_ten_mistakes_make_one_report(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {
        "DATABASE_URL": f"postgresql://crawler:{SECRET}@[nas/crawler",
        "CRAWLER_STATE_DIR": str(tmp_path / "file" / "below"),
        "CRAWLER_HOST_NAME": "a b",
        "CRAWLER_CONTACT": "me",
        "CRAWLER_DELIVERY_BATCH_MAX_ITEMS": "0",
        "CRAWLER_DELIVERY_BATCH_MAX_BYTES": "1T",
        "CRAWLER_DELIVERY_LINGER_SECONDS": "nan",
        "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS": "soon",
        "CRAWLER_SPOOL_MAX_BYTES": "65G",
        "CRAWLER_SPOOL_MAX_BITES": "64M",
    }
    found = problems(environment)
    assert found == [
        "CRAWLER_SPOOL_MAX_BITES is not a setting of this program; did you mean CRAWLER_SPOOL_MAX_BYTES?",
        (
            "DATABASE_URL (value not shown) cannot be read; allowed: "
            "postgresql://user:password@host/database "
            "with special characters of the password percent-encoded, or a libpq DSN"
        ),
        (
            f"CRAWLER_STATE_DIR={str(tmp_path / 'file' / 'below')!r} (Spool, run ledger and page "
            "memory: the one "
            "folder to keep on the card); allowed: an absolute path of a folder that this user may write to, "
            "or may make"
        ),
        (
            "CRAWLER_HOST_NAME='a b' (What this machine is called in every row it stores); allowed: 1 to 100 "
            "letters, digits, dots, dashes or underscores"
        ),
        (
            "CRAWLER_CONTACT='me' (Who to write to about this crawler: it is sent with every "
            "request, as part of "
            "USER_AGENT); allowed: an address a site's owner can write to, e.g. mailto:me@example.org or "
            "https://example.org/me"
        ),
        (
            "CRAWLER_DELIVERY_BATCH_MAX_ITEMS='0' (A batch goes to PostgreSQL when it holds this "
            "many items); "
            "allowed: a whole number from 1 to 10000"
        ),
        (
            "CRAWLER_DELIVERY_BATCH_MAX_BYTES='1T' (or this many bytes); allowed: a size from 1K to 64M, "
            "e.g. 524288 or 512K"
        ),
        (
            "CRAWLER_DELIVERY_LINGER_SECONDS='nan' (or when its first item has waited this long); allowed: "
            "seconds from 0 to 60"
        ),
        (
            "CRAWLER_SPOOL_MAX_BYTES='65G' (The spool's cap, reserved on the card when it is first made); "
            "allowed: a size from 1M to 64G, e.g. 64M"
        ),
        (
            "CRAWLER_DELIVERY_CALL_DEADLINE_SECONDS='soon' (No exchange with PostgreSQL lasts "
            "longer); allowed: "
            "seconds from 0.5 to 120"
        ),
    ]
    report = str(ConfigurationError(found))
    assert report.startswith("10 wrong setting(s); nothing was started:\n  1. CRAWLER_SPOOL_MAX_BITES")
    assert len(report.splitlines()) == 11


def test_an_unknown_name_like_no_other_lists_what_there_is() -> None:
    (problem,) = problems({"CRAWLER_QQQQ": "1"})
    assert problem.startswith("CRAWLER_QQQQ is not a setting of this program; allowed: CRAWLER_CONTACT, ")


def test_the_secret_is_in_no_text() -> None:
    configuration = read({"DATABASE_URL": URL})
    assert configuration.database_url == URL
    assert configuration.database == "nas:5432/crawler"
    assert SECRET not in f"{configuration!r} {configuration}"


@pytest.mark.parametrize("url", ["", " ", "\n"])
def test_an_empty_address_means_that_items_wait(url: str) -> None:
    assert read({"DATABASE_URL": url}).database_url is None


def test_the_secret_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"{URL}\n")
    assert read({"DATABASE_URL_FILE": str(file)}).database_url == URL


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(URL)
    (problem,) = problems({"DATABASE_URL": URL, "DATABASE_URL_FILE": str(file)})
    assert problem == "DATABASE_URL and DATABASE_URL_FILE are both set; allowed: one of them"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not text"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "url"
    if content is not None:
        file.write_bytes(content)
    (problem,) = problems({"DATABASE_URL_FILE": str(file)})
    assert problem.startswith(f"DATABASE_URL_FILE={str(file)!r} cannot be read: ")


def test_a_file_with_a_wrong_address_does_not_show_it(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"host=nas {SECRET}")
    (problem,) = problems({"DATABASE_URL_FILE": str(file)})
    assert problem.startswith("DATABASE_URL (value not shown) cannot be read")


def test_the_secret_on_the_command_line_is_refused() -> None:
    (problem,) = problems({}, {"DATABASE_URL": URL})
    assert problem.startswith("DATABASE_URL is given with -s, where every user of this machine can read it")


def test_an_item_must_fit_the_spool() -> None:
    (problem,) = problems({"CRAWLER_SPOOL_MAX_BYTES": "10M", "CRAWLER_DELIVERY_ITEM_MAX_BYTES": "6M"})
    assert "does not fit the spool" in problem


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("1K", 1024), ("3 M", 3 * 1024**2), ("1G", 1024**3)]
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert read({"CRAWLER_DELIVERY_QUEUE_MAX_BYTES": text}).limits.queue_max_bytes == size


@pytest.mark.parametrize("text", ["", "1.5", "-1", "1KB", "0", "2G", "1e3", "K"])
def test_a_size_out_of_its_bounds_is_refused(text: str) -> None:
    (problem,) = problems({"CRAWLER_DELIVERY_QUEUE_MAX_BYTES": text})
    assert problem.endswith("allowed: a size from 1K to 1G, e.g. 8M")


def test_page_memories_are_in_the_state_folder_unless_told_otherwise(tmp_path: Path) -> None:
    environment = {"CRAWLER_STATE_DIR": str(tmp_path)}
    assert read(environment).pages_dir == tmp_path / "pages"
    assert read(environment, {"DELTAFETCH_DIR": str(tmp_path / "other")}).pages_dir == tmp_path / "other"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1", True),
        ("True", True),
        ("yes", True),
        ("0", False),
        ("false", False),
        (True, True),
        (False, False),
    ],
)
def test_a_switch_is_on_or_off_as_scrapy_settings_say_it(text: object, meant: bool) -> None:
    assert read({}, {"DELTAFETCH_ENABLED": text}).deltafetch_enabled is meant
    assert read({}, {"DELTAFETCH_RESET": text}).deltafetch_reset is meant


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DELTAFETCH_ENABLED", "perhaps"),
        ("DELTAFETCH_DIR", "pages"),
        ("DELTAFETCH_EXPIRY_DAYS", "-1"),
        ("DELTAFETCH_MAX_PAGES", "0"),
    ],
)
def test_a_wrong_setting_of_the_page_memory_is_reported(name: str, text: str) -> None:
    [problem] = problems({f"CRAWLER_{name}": text})
    assert problem.startswith(f"CRAWLER_{name}={text!r}")
