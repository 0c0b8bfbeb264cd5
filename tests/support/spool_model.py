"""What a spool has to hold, in plain Python: the oracle of the tests that hurt a real one."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Self

from crawler.delivery.spool import Account, Batch, Settlement, Spool
from crawler.records import DeadLetter, Stream


class Contents(NamedTuple):
    """Everything a spool holds, comparable: batches and dead letters with their numbers, and the books."""

    batches: tuple[tuple[int, Stream, tuple[bytes, ...]], ...]
    letters: tuple[tuple[int, DeadLetter], ...]
    accounts: tuple[Account, ...]

    @property
    def items(self) -> Counter[bytes]:
        """Each line that waits, and each payload that is dead, with how often it is there."""
        waiting = (line for _, _, lines in self.batches for line in lines)
        return Counter(waiting) + Counter(letter.payload for _, letter in self.letters)


class SpoolModel:
    """A spool that cannot fail, with the methods of the real one that change or show something."""

    def __init__(self) -> None:
        """Return an empty one."""
        self._batches: dict[int, Batch] = {}
        self._letters: dict[int, tuple[str, DeadLetter]] = {}
        self._books: dict[Stream, Counter[str]] = {}
        self._last_batch = 0
        self._last_letter = 0

    def copy(self) -> Self:
        """Return one that goes its own way from here."""
        other = type(self)()
        other._batches = self._batches.copy()
        other._letters = self._letters.copy()
        other._books = {stream: book.copy() for stream, book in self._books.items()}
        other._last_batch = self._last_batch
        other._last_letter = self._last_letter
        return other

    def append(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> int:
        """Keep a batch; return its number."""
        self._book(stream, spooled=len(lines))
        return self._insert(stream, columns, lines)

    def bury(self, columns: str, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters."""
        for letter in letters:
            self._kill(columns, letter)
            self._book(letter.stream, buried=1)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Forget batches and keep their dead."""
        for done in settlements:
            del self._batches[done.batch.id]
            refused = done.batch.items - done.stored - done.unchanged
            self._book(done.batch.stream, stored=done.stored, unchanged=done.unchanged, refused=refused)
            for letter in done.dead:
                self._kill(done.batch.columns, letter)

    def replay(self, ids: Iterable[int] | None = None) -> int:
        """Queue dead letters again, those that can be; return how many."""
        wanted = [number for number in self._wanted(ids) if self._letters[number][1].replayable]
        for number in wanted:
            columns, letter = self._letters.pop(number)
            self._insert(letter.stream, columns, [letter.payload])
            self._book(letter.stream, replayed=1)
        return len(wanted)

    def forget(self, ids: Iterable[int] | None = None) -> int:
        """Delete dead letters for good; return how many."""
        wanted = self._wanted(ids)
        for number in wanted:
            _, letter = self._letters.pop(number)
            self._book(letter.stream, forgotten=1)
        return len(wanted)

    def batches(self) -> list[Batch]:
        """Return the batches, oldest first."""
        return list(self._batches.values())

    def dead_letters(self) -> list[tuple[int, float, str, DeadLetter]]:
        """Return the dead letters, oldest first; none knows when it died."""
        return [(number, 0.0, columns, letter) for number, (columns, letter) in self._letters.items()]

    def accounts(self) -> list[Account]:
        """Return the books."""
        return [self._account(stream) for stream in sorted(self._books)]

    def _account(self, stream: Stream) -> Account:
        book = self._books[stream]
        return Account(
            stream,
            spooled=book["spooled"],
            stored=book["stored"],
            unchanged=book["unchanged"],
            refused=book["refused"],
            buried=book["buried"],
            replayed=book["replayed"],
            forgotten=book["forgotten"],
            waiting=sum(batch.items for batch in self._batches.values() if batch.stream == stream),
            dead=sum(letter.stream == stream for _, letter in self._letters.values()),
        )

    def _insert(self, stream: Stream, columns: str, lines: Sequence[bytes]) -> int:
        self._last_batch += 1
        batch = Batch(self._last_batch, stream, columns, len(lines), 0.0, b"", list(lines))
        self._batches[batch.id] = batch
        return batch.id

    def _kill(self, columns: str, letter: DeadLetter) -> None:
        self._last_letter += 1
        self._letters[self._last_letter] = (columns, letter)

    def _book(self, stream: Stream, **items: int) -> None:
        self._books.setdefault(stream, Counter()).update(items)

    def _wanted(self, ids: Iterable[int] | None) -> list[int]:
        known = list(self._letters)
        return known if ids is None else [number for number in known if number in set(ids)]


def contents_of(spool: Spool | SpoolModel) -> Contents:
    """Given a spool or the model of one, return what it holds."""
    return Contents(
        tuple((batch.id, batch.stream, tuple(batch.lines or ())) for batch in spool.batches()),
        tuple((number, letter) for number, _, _, letter in spool.dead_letters()),
        tuple(spool.accounts()),
    )
