"""What a card may hold after a power cut, from a log of everything a process did to its files.

Only what was synced is sure to be there: the content of a file after its own fsync, the name of a file after
that of its folder. Of the rest a card may have written all, nothing, or any part, in any order, and of each
write any of its sectors.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from random import Random
from typing import NamedTuple

SECTOR_BYTES = 512
_HEADER = struct.Struct("=cQQQ")


class Event(NamedTuple):
    """One call that succeeded; write_log.c says what the fields are for each kind."""

    kind: str
    inode: int
    offset: int
    payload: bytes

    @property
    def paths(self) -> tuple[str, str]:
        """The one or two paths a call was about."""
        one, other, _ = self.payload.decode().split("\0")
        return one, other


class Unsynced(Enum):
    """How much of what was not synced the card has written."""

    LOST = auto()
    KEPT = auto()
    SOME = auto()
    TORN = auto()


def read_log(path: Path) -> list[Event]:
    """Return the events of a log, in order."""
    raw = path.read_bytes()
    events, at = [], 0
    while at < len(raw):
        kind, inode, offset, length = _HEADER.unpack_from(raw, at)
        at += _HEADER.size
        events.append(Event(kind.decode(), inode, offset, raw[at : at + length]))
        at += length
    return events


@dataclass(eq=False)
class _File:
    """A file, whatever its names: what is synced of it, and what was done to it since."""

    synced: bytearray = field(default_factory=bytearray)
    since: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        self._replay(self.synced, Unsynced.KEPT, Random())
        self.since = []

    def content(self, unsynced: Unsynced, chance: Random) -> bytes:
        content = self.synced.copy()
        self._replay(content, unsynced, chance)
        return bytes(content)

    def _replay(self, content: bytearray, unsynced: Unsynced, chance: Random) -> None:
        for event in self.since:
            for offset, part in _parts(event, unsynced):
                if _is_kept(unsynced, chance):
                    _apply(event.kind, offset, part, content)


def _parts(event: Event, unsynced: Unsynced) -> Iterator[tuple[int, bytes]]:
    """Cut a write into the sectors it touches, if the card may have torn it."""
    if unsynced is not Unsynced.TORN or event.kind != "W":
        yield event.offset, event.payload
        return
    at, end = event.offset, event.offset + len(event.payload)
    while at < end:
        upto = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
        yield at, event.payload[at - event.offset : upto - event.offset]
        at = upto


def _is_kept(unsynced: Unsynced, chance: Random) -> bool:
    return unsynced is Unsynced.KEPT or (unsynced is not Unsynced.LOST and chance.random() < 0.5)


def _apply(kind: str, offset: int, part: bytes, content: bytearray) -> None:
    if kind == "T":
        del content[offset:]
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(part)] = part


@dataclass(frozen=True)
class _Naming:
    """A change of names: ``gone`` names nothing afterwards, ``name`` names the entry."""

    folder: str
    gone: str | None = None
    name: str | None = None
    entry: "_File | None" = None

    def apply(self, names: "dict[str, _File | None]") -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.name is not None:
            names[self.name] = self.entry


class Disk:
    """The files below a folder: as the process sees them, and as a power cut would leave them."""

    def __init__(self, folder: Path) -> None:
        """Given the folder before the process starts; what is in it is synced."""
        self._folder = folder
        # A folder is None, a file what it holds.
        self._synced_names: dict[str, _File | None] = {str(folder): None}
        self._inodes: dict[int, _File | str] = {folder.stat().st_ino: str(folder)}
        for path in sorted(folder.rglob("*")):
            entry = None if path.is_dir() else _File(bytearray(path.read_bytes()))
            self._synced_names[str(path)] = entry
            self._inodes[path.stat().st_ino] = str(path) if entry is None else entry
        self._names = dict(self._synced_names)
        self._since: list[_Naming] = []

    def apply(self, event: Event) -> None:
        """Given the next thing the process did, remember it."""
        match event.kind:
            case "S":
                self._sync(self._inodes[event.inode])
            case "W" | "T":
                file = self._inodes[event.inode]
                assert isinstance(file, _File)
                file.since.append(event)
            case _:
                self._rename(event)

    def content(self, name: str) -> bytes:
        """Return what the process has written to one file so far, synced or not."""
        file = self._names.get(str(self._folder / name))
        return b"" if file is None else file.content(Unsynced.KEPT, Random())

    @property
    def unsynced_names(self) -> int:
        """How many changes of names a power cut could undo."""
        return len(self._since)

    def image(self, unsynced: Unsynced, chance: Random) -> dict[str, bytes]:
        """Return what the card may hold if the power goes now: the content of each file, by its path."""
        names = dict(self._synced_names)
        for naming in self._since:
            if _is_kept(unsynced, chance):
                naming.apply(names)
        return {
            str(Path(name).relative_to(self._folder)): file.content(unsynced, chance)
            for name, file in names.items()
            if file is not None and self._is_reachable(name, names)
        }

    def _is_reachable(self, name: str, names: "dict[str, _File | None]") -> bool:
        return name == str(self._folder) or (
            name in names and self._is_reachable(str(Path(name).parent), names)
        )

    def _sync(self, entry: "_File | str") -> None:
        if isinstance(entry, _File):
            entry.sync()
            return
        for naming in self._since:
            if naming.folder == entry:
                naming.apply(self._synced_names)
        self._since = [naming for naming in self._since if naming.folder != entry]

    def _rename(self, event: Event) -> None:
        one, other = event.paths
        folder = str(Path(one).parent)
        match event.kind:
            case "C":
                self._inodes[event.inode] = entry = _File()
                naming = _Naming(folder, name=one, entry=entry)
            case "D":
                self._inodes[event.inode] = one
                naming = _Naming(folder, name=one)
            case "U":
                naming = _Naming(folder, gone=one)
            case "R":
                naming = _Naming(folder, gone=one, name=other, entry=self._names[one])
            case "L":
                naming = _Naming(folder, name=other, entry=self._names[one])
            case kind:
                raise ValueError(f"{kind!r}: no such event")
        naming.apply(self._names)
        self._since.append(naming)
