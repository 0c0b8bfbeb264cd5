"""What each declared type takes and refuses, and that a refusal names the field and never its value."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, StrEnum
from types import NoneType, UnionType
from typing import (  # noqa: UP035
    TYPE_CHECKING,
    Annotated,
    Any,
    ClassVar,
    Final,
    List,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
    get_args,
    get_origin,
)
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawler.exceptions import ItemInvalid, ItemRefused
from crawler.validation import (
    Unreadable,
    a_type,
    checker_of,
    is_without_value,
    rule_of,
    unread_annotations,
    with_article,
)

if TYPE_CHECKING:
    from decimal import Context

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
Anything = TypeVar("Anything")
Isbn = NewType("Isbn", str)


class Colour(Enum):
    RED = "red"


class Tone(StrEnum):
    LOW = "low"


class Point(NamedTuple):
    x: int
    y: int


class Loose(TypedDict):
    name: str


@dataclass
class Offer:
    price: Decimal
    notes: list[str] = field(default_factory=list)


@dataclass
class Node:
    name: str
    children: "list[Node]" = field(default_factory=list)


def problem_of(annotation: Any, value: Any) -> str | None:
    """What an item says that has one field of this type with this value."""
    item_class = make_dataclass("Item", [("value", annotation)])
    try:
        checker_of(item_class).examine(item_class(value))
    except ItemInvalid as invalid:
        return str(invalid)
    return None


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "x"),
        (str, ""),
        (str, Tone.LOW),
        (int, 5),
        (int, 10**40),
        (float, 5.0),
        (float, float("nan")),
        (float, 5),
        (bool, False),
        (Decimal, Decimal("1.50")),
        (datetime, NOON),
        (date, NOON.date()),
        (time, NOON.time()),
        (UUID, UUID(int=1)),
        (Colour, Colour.RED),
        (bytes, b"\x00"),
        (None, None),
        (str | None, None),
        (Optional[int], 5),  # noqa: UP045
        (Union[int, str], "x"),  # noqa: UP007
        (list, [object()]),
        (list[str], []),
        (list[str], ["a", Tone.LOW]),
        (list[int | None], [1, None]),
        (List[str], ["a"]),  # noqa: UP006
        (set[int], {1}),
        (frozenset[str], frozenset({"a"})),
        (dict[str, float], {"a": 1, "b": 2.5}),
        (dict[str, list[int]], {"a": [1]}),
        (tuple[int, str], (1, "a")),
        (tuple[int, ...], ()),
        (tuple[int, ...], Point(1, 2)),
        (Sequence[int], [1]),
        (Mapping[str, int], {"a": 1}),
        (deque[int], deque([1])),
        (Literal["a", "b"], "b"),
        (Literal[1, None], None),
        (Any, object()),
        (object, None),
        (Annotated[int, "metres"], 5),
        (Annotated[list[str] | None, "tags"], None),
        (Final[int], 5),
        (Isbn, "978"),
        (Offer, Offer(Decimal(1))),
        (list[Offer], [Offer(Decimal(1), ["n"])]),
        (Node, Node("a", [Node("b", [Node("c")])])),
    ],
    ids=str,
)
def test_a_value_of_its_type_is_taken(annotation: Any, value: Any) -> None:
    assert problem_of(annotation, value) is None


@pytest.mark.parametrize(
    ("annotation", "value", "problem"),
    [
        (str, 5, "the field 'value' is an int; allowed: str"),
        (str, None, "the field 'value' is None, but required; allowed: str"),
        (str, b"x", "is a bytes; allowed: str"),
        (int, "5", "is a str; allowed: int"),
        (int, 5.0, "is a float; allowed: int"),
        (int, True, "is a bool; allowed: int"),
        (float, True, "is a bool; allowed: float"),
        (float, "5", "is a str; allowed: float"),
        (float | None, Decimal(5), "is a Decimal; allowed: float or None"),
        (bool, 1, "is an int; allowed: bool"),
        (Decimal, 1.5, "is a float; allowed: Decimal"),
        (Decimal, 1, "is an int; allowed: Decimal"),
        (datetime, NOON.date(), "is a date; allowed: datetime"),
        (date, NOON, "is a datetime; allowed: date"),
        (time, "12:00", "is a str; allowed: time"),
        (UUID, str(UUID(int=1)), "is a str; allowed: UUID"),
        (Colour, "red", "is a str; allowed: Colour"),
        (bytes, "x", "is a str; allowed: bytes"),
        (None, 0, "is an int; allowed: None"),
        (int | str | None, 1.5, "is a float; allowed: int, str or None"),
        (list, (), "is a tuple; allowed: list"),
        (list[str], "ab", "the field 'value' is a str; allowed: list[str]"),
        (list[str], ["a", 1], "the field 'value[1]' is an int; allowed: str"),
        (list[str] | None, ["a", None], "the field 'value[1]' is None, but required; allowed: str"),
        (set[int], [1], "is a list; allowed: set[int]"),
        (dict[str, float], {1: 1.0}, "is a dict with an int as a key; allowed: dict[str, float]"),
        (dict[str, float], {"secret": "x"}, "the field 'value[...]' is a str; allowed: float"),
        (dict[str, list[int]], {"a": [1, "x"]}, "the field 'value[...][1]' is a str; allowed: int"),
        (tuple[int, str], (1,), "is a tuple of 1; allowed: tuple[int, str]"),
        (tuple[int, str], (1, 2), "the field 'value[1]' is an int; allowed: str"),
        (tuple[int, ...], [1], "is a list; allowed: tuple[int, ...]"),
        (Sequence[str], "abc", "is a str; allowed: Sequence[str]"),
        (Mapping[str, int], [("a", 1)], "is a list; allowed: Mapping[str, int]"),
        (Literal["a", "b"], "c", "is another str; allowed: 'a' or 'b'"),
        (Literal["a", None], 1, "is an int; allowed: 'a' or None"),
        (Literal[1], True, "is a bool; allowed: 1"),
        (Literal["a"], [], "is a list; allowed: 'a'"),
        (Annotated[int, "metres"], "5", "is a str; allowed: int"),
        (Isbn, 978, "is an int; allowed: str"),
        (Offer, {"price": Decimal(1)}, "the field 'value' is a dict; allowed: Offer"),
        (Offer, Offer(1.5), "the field 'value.price' is a float; allowed: Decimal"),  # type: ignore[arg-type]
        (
            list[Offer],
            [Offer(Decimal(1)), Offer(Decimal(1), ["a", 5])],  # type: ignore[list-item]
            "the field 'value[1].notes[1]' is an int; allowed: str",
        ),
        (
            Node,
            Node("a", [Node("b", [5])]),  # type: ignore[list-item]
            "the field 'value.children[0].children[0]' is an int; allowed: Node",
        ),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_by_name(annotation: Any, value: Any, problem: str) -> None:
    assert problem in (problem_of(annotation, value) or "taken")


def test_every_wrong_field_is_named_up_to_five_and_no_value_is() -> None:
    names = [f"field_{number}" for number in range(8)]
    item_class = make_dataclass("Item", [(name, int) for name in names])
    with pytest.raises(ItemInvalid) as caught:
        checker_of(item_class).examine(item_class(1, *["secret"] * 7))
    text = str(caught.value)
    assert "field_0" not in text
    assert [name for name in names if name in text] == names[1:6]
    assert text.endswith("and 2 fields more")
    assert "secret" not in text
    assert isinstance(caught.value, ItemRefused)
    assert (caught.value.code, ItemRefused.code) == ("invalid", "refused")


def test_a_field_that_was_never_set_is_missing() -> None:
    item = Offer(Decimal(1))
    del item.price
    with pytest.raises(ItemInvalid, match="the field 'price' is missing; allowed: Decimal") as caught:
        checker_of(Offer).examine(item)
    assert caught.value.empty == ["price"]
    item_class = make_dataclass("Item", [("value", Offer)])
    with pytest.raises(ItemInvalid, match=r"the field 'value.price' is None, but required"):
        checker_of(item_class).examine(item_class(item))


def test_a_required_field_is_one_that_does_not_take_none_whatever_its_default() -> None:
    item_class = make_dataclass("Item", [("a", str, None), ("b", str | None, None)])
    with pytest.raises(ItemInvalid, match="the field 'a' is None, but required") as caught:
        checker_of(item_class).examine(item_class())
    assert "'b'" not in str(caught.value)


def test_an_item_that_holds_itself_is_refused() -> None:
    node = Node("a")
    node.children.append(node)
    with pytest.raises(ItemInvalid, match="holds itself"):
        checker_of(Node).examine(node)


@dataclass
class Shelf:
    name: str
    tags: list[str]
    note: str | None
    count: int
    flag: bool
    kinds: ClassVar[list[str]] = ["not a field"]


@pytest.mark.parametrize(
    ("shelf", "empty"),
    [
        (Shelf("a", ["t"], "n", 1, True), []),
        (Shelf("", [], None, 0, False), ["name", "tags", "note"]),
        (Shelf("a", ["t"], "", 0, False), ["note"]),
    ],
)
def test_fields_without_a_value_are_counted_and_zero_and_false_are_values(
    shelf: Shelf, empty: list[str]
) -> None:
    assert sorted(checker_of(Shelf).examine(shelf)) == sorted(empty)


def test_an_item_that_is_refused_still_says_which_fields_are_empty() -> None:
    with pytest.raises(ItemInvalid) as caught:
        checker_of(Shelf).examine(Shelf("", [], None, "1", False))  # type: ignore[arg-type]
    assert sorted(caught.value.empty) == ["name", "note", "tags"]


class Unboolable:
    """As an array of numpy: it has no truth."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_foreign_values_are_not_asked_for_their_truth() -> None:
    assert problem_of(Any, Unboolable()) is None
    assert not is_without_value(Unboolable())


@pytest.mark.parametrize("value", [None, "", [], {}, (), set(), b""], ids=repr)
def test_what_is_no_value(value: Any) -> None:
    assert is_without_value(value)


@pytest.mark.parametrize("value", [0, 0.0, False, Decimal(0), " ", [None], {"": None}], ids=repr)
def test_what_is_a_value(value: Any) -> None:
    assert not is_without_value(value)


# -- annotations that say nothing ------------------------------------------------------------------


@pytest.mark.parametrize(
    "annotation",
    [
        Loose,
        Anything,
        Iterable[str],
        Callable[[], str],
        type[str],
        "NoSuchName",
        "str |",
        list[Loose],
        5,
        (int, str),
    ],
    ids=str,
)
def test_an_annotation_that_cannot_be_read_is_not_checked_and_is_said(annotation: Any) -> None:
    item_class = make_dataclass("Item", [("value", annotation), ("other", int)])
    assert not checker_of(item_class).examine(item_class(object(), 1))
    (unread,) = unread_annotations(item_class)
    assert unread.startswith("Item.value: ")
    # The field beside it is checked all the same.
    with pytest.raises(ItemInvalid, match="'other'"):
        checker_of(item_class).examine(item_class(object(), "x"))


@dataclass
class Outer:
    inner: "list[Inner]"
    context: "Context | None" = None


@dataclass
class Inner:
    loose: Loose
    outer: "Outer | None" = None


def test_annotations_of_nested_dataclasses_are_said_too_once() -> None:
    """``Context`` is imported for type checkers only; ``Outer`` and ``Inner`` hold each other."""
    unread = unread_annotations(Outer)
    assert sorted(text.partition(":")[0] for text in unread) == ["Inner.loose", "Outer.context"]
    assert unread_annotations(Offer) == []


def test_inherited_fields_are_read_where_they_were_declared() -> None:
    item_class = make_dataclass("Item", [("extra", int)], bases=(Node,), kw_only=True)
    assert unread_annotations(item_class) == []
    with pytest.raises(ItemInvalid, match=r"children\[0\]"):
        checker_of(item_class).examine(item_class("a", [5], extra=1))


def test_a_class_is_compiled_once() -> None:
    assert checker_of(Shelf) is checker_of(Shelf)
    assert checker_of(Shelf).names == ("name", "tags", "note", "count", "flag")


@pytest.mark.parametrize(
    ("name", "text"),
    [("int", "an int"), ("Item", "an Item"), ("str", "a str"), ("UUID", "a UUID"), ("object", "an object")],
)
def test_articles(name: str, text: str) -> None:
    assert with_article(name) == text


def test_the_article_of_a_type() -> None:
    assert (a_type(int), a_type(str)) == ("an int", "a str")


# -- against an oracle -----------------------------------------------------------------------------

SIMPLE: list[type] = [str, int, float, bool, Decimal, datetime, date, time, UUID, bytes, NoneType, Colour]
LITERALS = [Literal["a"], Literal[1, "b"], Literal[True], Literal[0, None]]


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = st.sampled_from([str, int, bytes])
    return (
        inner.map(lambda one: list[one])  # type: ignore[valid-type]
        | hashable.map(lambda one: set[one])  # type: ignore[valid-type]
        | inner.map(lambda one: tuple[one, ...])  # type: ignore[valid-type]
        | st.tuples(inner, inner).map(lambda two: tuple[two])  # type: ignore[valid-type]
        | st.tuples(hashable, inner).map(lambda two: dict[two])  # type: ignore[valid-type,misc]
        | st.tuples(inner, inner).map(lambda two: Union[two])  # noqa: UP007
    )


ANNOTATIONS = st.recursive(st.sampled_from([*SIMPLE, *LITERALS]), containers, max_leaves=4)
LEAVES = st.sampled_from(
    ["a", "b", "", 0, 1, True, False, None, 1.5, Decimal(1), NOON, NOON.date(), NOON.time()]
) | st.sampled_from([UUID(int=1), b"x", Colour.RED])
KEYS = st.sampled_from(["a", 1, b"x", True])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.sets(KEYS, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=6,
)


def allows(annotation: Any, value: Any) -> bool:
    """The oracle: slow, plain, and written from the table in docs/items.md."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return any(allows(each, value) for each in arguments)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in arguments)
    if origin is dict:
        return type(value) is dict and all(
            allows(arguments[0], key) and allows(arguments[1], each) for key, each in value.items()
        )
    if origin is tuple and arguments[-1] is not Ellipsis:
        return type(value) is tuple and len(value) == len(arguments) and all(map(allows, arguments, value))
    if origin is not None:
        return type(value) is origin and all(allows(arguments[0], each) for each in value)
    return type(value) is annotation or (annotation is float and type(value) is int)


@given(ANNOTATIONS, VALUES)
def test_a_rule_agrees_with_the_oracle_and_changes_nothing(annotation: Any, value: Any) -> None:
    before = copy.deepcopy(value)
    wrong = rule_of(annotation).look(value)
    assert (wrong is None) == allows(annotation, value), wrong
    assert value == before


@given(ANNOTATIONS, VALUES)
def test_the_short_way_of_a_rule_takes_nothing_that_a_look_refuses(annotation: Any, value: Any) -> None:
    rule = rule_of(annotation)
    if type(value) in rule.exact:
        assert rule.look(value) is None


def test_an_unreadable_annotation_is_told_from_one_that_allows_everything() -> None:
    assert rule_of(Any).look(object()) is None
    with pytest.raises(Unreadable):
        rule_of(Callable[[int], int])
