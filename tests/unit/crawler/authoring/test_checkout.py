"""Where an author works is found from anywhere inside it, and nowhere else."""

from pathlib import Path

import pytest

from crawler.authoring.checkout import current_checkout
from crawler.exceptions import CheckoutError


def test_is_the_folder_of_scrapy_cfg_around_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scrapy.cfg").touch()
    inside = tmp_path / "tests" / "sites"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    checkout = current_checkout()
    assert (checkout.spiders, checkout.saved_pages) == (tmp_path / "spiders", inside)


def test_says_where_to_go_when_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckoutError, match=r"is in no checkout of the project; allowed: a folder with scrapy\.cfg"
    ):
        current_checkout()
