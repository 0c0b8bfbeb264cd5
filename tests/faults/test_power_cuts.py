"""The power goes at any moment; of what was not synced yet the card has written nothing, all, or any part."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from crawler.delivery.spool import Spool
from crawler.exceptions import CardError
from crawler.ledger import RunLedger
from tests.faults.conftest import Form
from tests.support.card import folder_in_ram
from tests.support.delivery import MIB, chosen_seed, seeded
from tests.support.fault_report import Control, FaultReport, Trial
from tests.support.ledger_worker import books_of
from tests.support.power_cuts import Disk, Event, Unsynced, read_log
from tests.support.preload import compiled, preloaded
from tests.support.spool_model import Contents, contents_of
from tests.support.spool_oracle import Judgement, Oracle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PROJECT = Path(__file__).parents[2]
FAULT = "power cut"
SPOOL = "state/spool.sqlite"
LEDGER = "state/runs.sqlite"
CAP_BYTES = MIB
EVERYTHING = "append,append,append,append,settle,refuse,bury,replay,forget"

NOTHING = Contents((), (), ())


@pytest.fixture(scope="module")
def write_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that logs what a process does to its files."""
    return compiled("write_log", tmp_path_factory.mktemp("write_log"))


class Recording:
    """Everything a process did to the files of one folder, from a state of them that was on the card."""

    def __init__(self, ram: Path, library: Path) -> None:
        self.folder = ram / "recorded"
        self.folder.mkdir()
        self.witness = self.folder / "witness"
        self.events: list[Event] = []
        self._image = ram / "image"
        self._log = ram / "log"
        self._library = library

    def run(self, module: str, *arguments: object) -> None:
        """Let a process of the test's own work in the folder, to its end."""
        self._beginning = Disk(self.folder)
        self._log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", f"tests.support.{module}", *map(str, arguments)],
            env=preloaded(self._library, self.folder, WRITE_LOG_TO=self._log),
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        self.events = read_log(self._log)

    def points(self, number: int, chance: Random) -> list[int]:
        """Choose so many points, each after one event, a third of them before the process first spoke."""
        ends = range(1, len(self.events) + 1)
        spoke = next(end for end in ends if self.events[end - 1].payload.endswith(b"\n"))
        early = chance.sample(ends[:spoke], number // 3)
        return [*early, *chance.sample(ends[spoke:], number - len(early))]

    def namings(self) -> list[int]:
        """Choose the points where a file or folder has just got, or lost, a name."""
        return [end for end, event in enumerate(self.events, 1) if event.kind in "CDLRU"]

    def moments(self, points: Iterable[int]) -> Iterator[tuple[Disk, list[bytes]]]:
        """Return the disk at each point, and what the process has said since the one before."""
        chosen = set(points)
        disk, heard = self._beginning, 0
        for end, event in enumerate(self.events, 1):
            disk.apply(event)
            if end in chosen:
                words = disk.content(self.witness.name)
                yield disk, words[heard:].splitlines(keepends=True)
                heard = len(words)
        assert self._is_whole(disk), "the log lacks something the process did"

    def images(self, disk: Disk, chance: Random) -> Iterator[Path]:
        """Put what the card may hold at a moment into a folder, in each of the four ways."""
        for unsynced in Unsynced:
            for name, content in disk.image(unsynced, chance).items():
                (self._image / name).parent.mkdir(parents=True, exist_ok=True)
                (self._image / name).write_bytes(content)
            yield self._image
            shutil.rmtree(self._image, ignore_errors=True)

    def _is_whole(self, disk: Disk) -> bool:
        """With all of it kept, the disk is the folder as it was left."""
        image = disk.image(Unsynced.KEPT, Random())
        left = [path for path in self.folder.rglob("*") if path.is_file()]
        return all(path.read_bytes() == image[str(path.relative_to(self.folder))] for path in left)


@pytest.fixture
def recording(write_log: Path) -> Iterator[Recording]:
    """A recording that has not begun, in RAM, where thousands of images cost little."""
    with folder_in_ram() as ram:
        yield Recording(ram, write_log)


@dataclass
class Findings:
    """What was found in the images of one recording."""

    images: int = 0
    corrupt: int = 0
    with_loss: int = 0
    with_return: int = 0
    judgement: Judgement = field(default_factory=Judgement)
    problems: list[str] = field(default_factory=list)

    def add(self, problems: list[str], judgement: Judgement) -> None:
        """Enter one more image."""
        self.images += 1
        self.corrupt += bool(problems)
        self.with_loss += judgement.lost > 0
        self.with_return += judgement.back > 0
        self.judgement += judgement
        self.problems += problems

    @property
    def are_clean(self) -> bool:
        """True if nothing is corrupt, lost, back or wrong."""
        return not self.problems and self.judgement == Judgement()

    def __str__(self) -> str:
        return (
            f"of {self.images} images {self.corrupt} corrupt, {self.with_loss} with {self.judgement.lost} "
            f"acknowledged items lost, {self.with_return} with {self.judgement.back} back or twice"
        )


def opened(folder: Path, judge: Callable[[Contents], Judgement]) -> tuple[list[str], Judgement]:
    """Open a spool with the real class; return what is the matter with the file, and with its contents."""
    path = folder / SPOOL
    try:
        with closing(Spool(path, max_bytes=CAP_BYTES)) as spool:
            problems = spool.verify() + [f"set aside: {aside}" for aside in path.parent.glob("*.damaged-*")]
            judgement = judge(contents_of(spool))
    except CardError as error:
        return [str(error)], judge(NOTHING)
    sizes = path.stat().st_size, journal_of(path).stat().st_size
    if sizes < (CAP_BYTES, CAP_BYTES // 2):
        problems.append(f"only {sizes} bytes are reserved")
    return problems, judgement


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-journal")


def found_in_spools(recording: Recording, oracle: Oracle, points: int, chance: Random) -> Findings:
    """Cut the power at so many points of a recording, and open what is left."""
    findings = Findings()
    for disk, said in recording.moments(recording.points(points, chance)):
        oracle.hear(said)
        for folder in recording.images(disk, chance):
            findings.add(*opened(folder, oracle.judge))
    return findings


def work_on_a_spool(
    recording: Recording, *, does: str = EVERYTHING, pragmas: Mapping[str, object] = {}
) -> None:
    """Make a spool and use it."""
    recording.run(
        "spool_worker",
        (recording.folder / SPOOL).parent,
        *("--witness", recording.witness, "--does", does, "--operations", 150),
        *("--max-bytes", CAP_BYTES, "--seed", chosen_seed(), "--pragmas", json.dumps(pragmas)),
    )


def test_nothing_acknowledged_is_lost(recording: Recording, form: Form, fault_report: FaultReport) -> None:
    """From the moment the folder is made. What was settled stays away, and the books add up."""
    chance, oracle = seeded("power cuts"), Oracle()
    work_on_a_spool(recording)
    points = form.pick(short=40, full=500)
    findings = found_in_spools(recording, oracle, points, chance)
    assert findings.are_clean, f"{findings}: {findings.problems[:3]}"
    assert findings.images == points * 4
    assert oracle.acknowledged.keys() == {"append", "settle", "bury", "replay", "forget"}
    fault_report.trials.append(trial(form, findings, "a spool, made and used", oracle.acknowledged_items))


def trial(form: Form, findings: Findings, what: str, items: int) -> Trial:
    """Return what a trial is entered as."""
    return Trial(
        FAULT,
        form.name,
        chosen_seed(),
        {"images": findings.images},
        items=items,
        lost=findings.judgement.lost,
        twice=findings.judgement.back,
        wrong=findings.judgement.wrong,
        figures=f"{what}: {findings.corrupt} corrupt",
    )


@pytest.mark.parametrize(
    ("name", "pragmas"),
    [
        ("synchronous=OFF", {"synchronous": 0}),
        ("journal DELETE, synchronous=FULL", {"journal_mode": "delete"}),
        ("journal WAL, synchronous=NORMAL", {"journal_mode": "wal", "synchronous": 1}),
    ],
)
def test_other_pragmas_lose_what_was_acknowledged(
    recording: Recording, form: Form, fault_report: FaultReport, name: str, pragmas: dict[str, object]
) -> None:
    """The control: the same harness finds the loss."""
    work_on_a_spool(recording, pragmas=pragmas)
    points = form.pick(short=15, full=400)
    findings = found_in_spools(recording, Oracle(), points, seeded("power cuts"))
    assert findings.corrupt + findings.with_loss > 0
    fault_report.controls.append(Control(FAULT, name, str(findings)))


def test_a_cut_while_a_damaged_file_is_mended_costs_nothing(
    recording: Recording, form: Form, fault_report: FaultReport
) -> None:
    """The old file gets another name and a new one takes its own: no half of that may be what is left."""
    chance = seeded("mending")
    work_on_a_spool(recording, does="append,append,append,settle,bury")
    path = recording.folder / SPOOL
    damaged = cut_short(path)
    recording.run("spool_worker", path.parent, "--witness", recording.witness, "--operations", 0)
    with closing(Spool(path, max_bytes=CAP_BYTES)) as spool:
        kept = contents_of(spool)
    assert kept.items.total() > 20
    some = chance.sample(range(1, len(recording.events)), form.pick(short=10, full=150))
    findings = Findings()
    for disk, _ in recording.moments([*some, *recording.namings()]):
        for _ in range(1 + disk.unsynced_names):
            for folder in recording.images(disk, chance):
                findings.add(*mended(folder, damaged, kept))
    assert findings.are_clean, f"{findings}: {findings.problems[:3]}"
    fault_report.trials.append(trial(form, findings, "a damaged spool, mended", kept.items.total()))


def cut_short(path: Path) -> bytes:
    """Let the card lose the end of a file; return what is left of it."""
    damaged = path.read_bytes()[: -CAP_BYTES // 50]
    path.write_bytes(damaged)
    return damaged


def mended(folder: Path, damaged: bytes, kept: Contents) -> tuple[list[str], Judgement]:
    """Open a spool that was being mended; return what is the matter with it."""

    def judge(found: Contents) -> Judgement:
        lost, back = kept.items - found.items, found.items - kept.items
        return Judgement(lost.total(), back.total(), wrong=found != kept)

    problems, judgement = opened(folder, judge)
    if damaged not in (aside.read_bytes() for aside in (folder / SPOOL).parent.glob("*.damaged-*")):
        problems.append("the damaged file is gone")
    # The rows that were damaged, and that the file was set aside, are what this is about.
    expected = ("account of", "batch ", "set aside")
    return [problem for problem in problems if not problem.startswith(expected)], judgement


def test_the_run_ledger_keeps_every_entry(
    recording: Recording, form: Form, fault_report: FaultReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the same kind of file: after a cut it is as its last entry left it, or as the next would have."""
    monkeypatch.setattr("crawler.ledger._MAX_BYTES", CAP_BYTES)
    chance = seeded("ledger")
    recording.run("ledger_worker", recording.folder / LEDGER, recording.witness, 20)
    said = recording.witness.read_text().splitlines()
    states = ["[[], {}]", *said, said[-1]]
    points = form.pick(short=15, full=150)
    findings, entries = Findings(), 0
    for disk, words in recording.moments(recording.points(points, chance)):
        entries += len(words)
        for folder in recording.images(disk, chance):
            findings.add(*ledger_opened(folder, states[entries : entries + 2]))
    assert findings.are_clean, f"{findings}: {findings.problems[:3]}"
    fault_report.trials.append(trial(form, findings, "the run ledger, in entries", len(said)))


def ledger_opened(folder: Path, right: list[str]) -> tuple[list[str], Judgement]:
    """Open a ledger with the real class; return what is the matter with it."""
    path = folder / LEDGER
    with closing(RunLedger(path)) as books:
        found = books_of(books)
    problems = [f"set aside: {aside}" for aside in path.parent.glob("*.damaged-*")]
    return problems, Judgement(lost=found not in right)
