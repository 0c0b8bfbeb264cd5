"""Folders for a spool: in RAM where a test makes thousands, a real ext4 where the test is about that."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.tools import require_program, require_root

_RAM = Path("/dev/shm")
_SECTOR_BYTES = 512
_FILLER = "of-another-program"


@contextmanager
def folder_in_ram() -> Iterator[Path]:
    """A temporary folder in RAM, or, where there is no such file system, on the disk."""
    with tempfile.TemporaryDirectory(prefix="data-crawler-", dir=_RAM if _RAM.is_dir() else None) as name:
        yield Path(name)


class Card:
    """An ext4 file system of its own, in a file: to be filled, weighed, or made to fail."""

    def __init__(self, image: Path, folder: Path) -> None:
        """Given the file, which is formatted, and the folder where it is to be seen."""
        self.folder = folder
        self._image = image

    def mount(self) -> None:
        """Put the card in."""
        _run("mount", "-o", "loop", self._image, self.folder)

    def unmount(self) -> None:
        """Take the card out."""
        _run("umount", self.folder)

    def fill(self) -> None:
        """Another program takes all the space there is, until it gets no more."""
        taken = -1
        # What files lately deleted had comes free only after a while.
        while (now := self._take_what_is_left()) > taken:
            taken = now

    def _take_what_is_left(self) -> int:
        target = self.folder / _FILLER
        self.sync()
        done = subprocess.run(
            ["dd", "if=/dev/zero", f"of={target}", "bs=1k", "oflag=append", "conv=notrunc,fsync"],
            capture_output=True,
            text=True,
        )
        assert "No space left on device" in done.stderr, done.stderr
        return target.stat().st_size

    def free(self) -> None:
        """That program gives its space back."""
        (self.folder / _FILLER).unlink()
        self.sync()

    def break_off(self) -> None:
        """What ext4 does to a card whose answers make no sense: from now on it can only be read."""
        _run("mount", "-o", "remount,abort", self.folder)

    def repair(self) -> None:
        """Take the card out, check it, put it in again."""
        self.unmount()
        checked = subprocess.run(["e2fsck", "-f", "-p", self._image], capture_output=True, text=True)
        assert checked.returncode in (0, 1), checked.stdout + checked.stderr
        self.mount()

    def sync(self) -> None:
        """Wait until everything written so far has reached the card."""
        _run("sync", "-f", self.folder)

    def written_bytes(self) -> int:
        """Sync; return how many bytes were ever written to the card, by the file system too."""
        self.sync()
        device = self.folder.stat().st_dev
        statistics = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        return int(statistics[6]) * _SECTOR_BYTES


@contextmanager
def ext4_card(size_bytes: int) -> Iterator[Card]:
    """A card of this size, mounted, without anything in it. Skips the test where that cannot be done."""
    require_root(to="mount a file system")
    format_it = require_program("mkfs.ext4", install="apt install e2fsprogs")
    with folder_in_ram() as ram:
        image, folder = ram / "image", ram / "card"
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(size_bytes)
        # All of it is written now: nothing of that is to be taken for a test's later.
        options = "lazy_itable_init=0,lazy_journal_init=0"
        _run(format_it, "-q", "-b", "4096", "-m", "0", "-E", options, image)
        card = Card(image, folder)
        card.mount()
        try:
            yield card
        finally:
            # Also when a test has failed and left a file open.
            _run("umount", "--lazy", folder)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)
