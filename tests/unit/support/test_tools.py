"""A missing tool is a skip that says what to do on a laptop, and a failure in CI."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tools import require_package, require_path, require_program, require_root

MISSING: list[Callable[[], object]] = [
    lambda: require_program("no-such-program", install="apt install it"),
    lambda: require_package("no_such_package", install="apt install it"),
    lambda: require_path(Path("/no/such/path"), install="apt install it"),
]


@pytest.mark.parametrize("require", MISSING)
def test_skips_with_the_remedy(require: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"no.such.*to run this test: apt install it"):
        require()


@pytest.mark.parametrize("require", MISSING)
def test_fails_in_ci(require: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no.such"):
        require()


def test_only_root_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(pytest.skip.Exception, match="may mount; to run this test: run pytest as root"):
        require_root(to="mount")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    require_root(to="mount")


def test_returns_what_is_there(tmp_path: Path) -> None:
    assert require_program("sh", install="").endswith("/sh")
    assert require_path(tmp_path, install="") == tmp_path
    require_package("psutil", install="")
