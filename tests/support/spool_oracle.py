"""From what workers said before they died: every state in which their spool may rightly be found."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.support.spool_model import Contents, SpoolModel, contents_of
from tests.support.spool_worker import Operation, perform


@dataclass(frozen=True)
class Judgement:
    """What is wrong with what was found, in items, measured against the nearest state that would be right.

    ``lost`` were acknowledged and are missing; ``back`` are there though they were settled, or twice;
    ``wrong`` have another number, other bytes, or are booked otherwise.
    """

    lost: int = 0
    back: int = 0
    wrong: int = 0

    def __add__(self, other: "Judgement") -> "Judgement":
        return Judgement(self.lost + other.lost, self.back + other.back, self.wrong + other.wrong)

    @property
    def items(self) -> int:
        """How many items there is something wrong with."""
        return self.lost + self.back + self.wrong


class Oracle:
    """Hears what workers say and knows what their spool may hold.

    What was said to be done is there. What was begun, or failed, is there or not; never a part of it.
    """

    def __init__(self) -> None:
        """Before anyone has said anything the spool is empty."""
        self.acknowledged: Counter[str] = Counter()
        self.acknowledged_items = 0
        self.failed: list[str] = []
        self._models = [SpoolModel()]
        self._begun: Operation | None = None

    def hear(self, lines: Iterable[bytes]) -> None:
        """Given what one worker said, in its order; a line it did not finish is ignored."""
        for line in lines:
            if line.endswith(b"\n"):
                self._hear(*json.loads(line))

    def end(self) -> None:
        """The worker is dead: what it had begun may have happened."""
        self._branch(lambda _result: True)

    def judge(self, found: Contents) -> Judgement:
        """Given what is in the spool, return what is wrong with it. Changes nothing."""
        models = [*self._models, *(self._after(lambda _result: True) if self._begun else ())]
        return min((_judged(found, contents_of(model)) for model in models), key=lambda one: one.items)

    def settle_on(self, found: Contents) -> None:
        """What was found is what there is: forget the other possibilities."""
        self._models = [model for model in self._models if contents_of(model) == found]
        assert self._models, "judge() before settling on it"

    def _hear(self, word: str, about: object) -> None:
        match word:
            case "begins":
                assert isinstance(about, list)
                self._begun = Operation(*about)
            case "done":
                self._acknowledge(about)
            case "failed" | "unopened" | "unread":
                self.failed.append(str(about))
                self._branch(lambda _result: True)

    def _acknowledge(self, result: object) -> None:
        assert self._begun is not None
        self.acknowledged[self._begun.kind] += 1
        self.acknowledged_items += self._begun.items
        self._models = self._after(lambda returned: result in (None, returned))
        self._begun = None
        assert self._models, f"no spool could have said {result}"

    def _branch(self, is_right: Callable[[int | None], bool]) -> None:
        if self._begun is not None:
            self._models += self._after(is_right)
            self._begun = None

    def _after(self, is_right: Callable[[int | None], bool]) -> list[SpoolModel]:
        """Return what each state becomes by what was begun, where that is possible."""
        assert self._begun is not None
        models = []
        for model in self._models:
            after = model.copy()
            try:
                if is_right(perform(self._begun, after)):
                    models.append(after)
            except KeyError:
                continue
        return models


def _judged(found: Contents, right: Contents) -> Judgement:
    if found == right:
        return Judgement()
    lost = (right.items - found.items).total()
    back = (found.items - right.items).total()
    misplaced = len(set(right.batches) ^ set(found.batches)) + len(set(right.letters) ^ set(found.letters))
    return Judgement(lost, back, 0 if lost or back else max(1, misplaced))
