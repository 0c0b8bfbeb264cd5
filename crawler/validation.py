"""An item declared as a dataclass is held to the types of its fields. Nothing is ever converted.

What a declared type takes, where Python or mypy leave a choice:

=======================  ================================================================
declared                 takes
=======================  ================================================================
``float``                float and int: JSON has one kind of number, and a site that says
                         7.5 today says 8 tomorrow. The row holds the number as it came
``int``                  int, but no bool, which Python counts as one
``date``                 date, but no datetime, which would bring its time along
a dataclass              its instances, held to their own types
``list[T]`` and so on    the collection, with every element held to ``T``
any other class          its instances, subclasses included
=======================  ================================================================

A field is required unless its type takes None, whatever its default.
"""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime
from functools import cache, partial, reduce
from inspect import get_annotations
from operator import attrgetter, itemgetter, or_
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from crawler.exceptions import ItemInvalid

_WRONG_FIELDS_NAMED = 5
# Items of one class differ in which fields are None, and seldom in more.
_PLANS_KEPT = 256
# Without a value: None, and these when they hold nothing. Foreign types are not asked.
_SIZED = frozenset({str, bytes, list, tuple, dict, set, frozenset})
_COLLECTIONS = (Sequence, AbstractSet)
_ALSO: dict[type, tuple[type, ...]] = {float: (int,)}
# Their instances are instances of the class beside them, and never what its author meant.
_IMPOSTORS: dict[type, type] = {int: bool, float: bool, date: datetime}


class Wrong(NamedTuple):
    """A value that is not allowed. ``path`` leads from the field to it, e.g. ``[3]``."""

    path: str
    found: str
    allowed: str


Look = Callable[[Any], Wrong | None]


class Rule(NamedTuple):
    """What an annotation allows.

    A value whose very type is in ``exact`` needs no look: that is nearly all of them.
    """

    allowed: str
    exact: frozenset[type]
    look: Look


class Plan(NamedTuple):
    """What is left to look at in items whose values have certain types: for most, whether texts are empty."""

    none: tuple[str, ...]
    sized_names: tuple[str, ...]
    sized: Callable[[tuple[Any, ...]], tuple[Any, ...]]
    looks: tuple[tuple[int, str, Look], ...]


class Unreadable(Exception):
    """Raised for an annotation that says nothing about values that could be checked."""


class Checker:
    """The fields of one dataclass, compiled once."""

    def __init__(self, item_class: type) -> None:
        """Given a dataclass, return what checks its instances."""
        self.unread: list[str] = []
        """Fields that are not checked, as their annotation cannot be read: ``Class.field: annotation``."""
        self.nested: set[type] = set()
        """The dataclasses among the annotations of the fields."""
        self._rules: list[tuple[str, frozenset[type], Look]] = []
        self._allowed: dict[str, str] = {}
        for field in dataclasses.fields(item_class):
            rule = self._rule_of(item_class, field)
            self._rules.append((field.name, rule.exact, rule.look))
            self._allowed[field.name] = rule.allowed
        self._values = _all_of(attrgetter, list(self._allowed))
        self._plans: dict[tuple[type, ...], Plan] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the fields, in order."""
        return tuple(self._allowed)

    def examine(self, item: Any) -> Sequence[str]:
        """Given an instance, return the names of its fields without a value: None, '', [], {}.

        Raise ItemInvalid, which names each wrong field, the type of its value and what is allowed.
        """
        try:
            values = self._values(item)
        except AttributeError:
            raise self._incomplete(item) from None
        kinds = tuple(map(type, values))
        plan = self._plans.get(kinds) or self._planned(kinds)
        empty = plan.none
        sized = plan.sized(values)
        if not all(sized):
            empty = (
                *empty,
                *(name for name, value in zip(plan.sized_names, sized, strict=True) if not value),
            )
        if plan.looks:
            self._look(plan, values, empty)
        return empty

    def _planned(self, kinds: tuple[type, ...]) -> Plan:
        names = self.names
        sized = [index for index, kind in enumerate(kinds) if kind in _SIZED]
        plan = Plan(
            tuple(name for name, kind in zip(names, kinds, strict=True) if kind is NoneType),
            tuple(names[index] for index in sized),
            _all_of(itemgetter, sized),
            tuple(
                (index, name, look)
                for index, (name, exact, look) in enumerate(self._rules)
                if kinds[index] not in exact and look is not _nothing_wrong
            ),
        )
        if len(self._plans) < _PLANS_KEPT:
            self._plans[kinds] = plan
        return plan

    def _look(self, plan: Plan, values: tuple[Any, ...], empty: Sequence[str]) -> None:
        try:
            found = [(name, look(values[index])) for index, name, look in plan.looks]
        except RecursionError:
            raise ItemInvalid("the item holds itself, or is nested too deep to be checked") from None
        wrong = [(name, each) for name, each in found if each is not None]
        if wrong:
            raise ItemInvalid(_sentence(wrong), empty)

    def first_wrong(self, item: Any) -> Wrong | None:
        """Given an instance inside another value, return what is wrong with it."""
        for name, exact, look in self._rules:
            value = getattr(item, name, None)
            wrong = None if type(value) in exact else look(value)
            if wrong is not None:
                return wrong._replace(path=f".{name}{wrong.path}")
        return None

    def _incomplete(self, item: Any) -> ItemInvalid:
        missing = [name for name in self.names if not hasattr(item, name)]
        wrong = [(name, Wrong("", "missing", self._allowed[name])) for name in missing]
        return ItemInvalid(_sentence(wrong), missing)

    def _rule_of(self, item_class: type, field: "dataclasses.Field[Any]") -> Rule:
        try:
            annotation = _resolved(item_class, field)
            rule = rule_of(annotation)
        except Unreadable:
            self.unread.append(f"{item_class.__name__}.{field.name}: {_text_of(field.type)}")
            return ANYTHING
        self.nested.update(_dataclasses_in(annotation))
        return rule


@cache
def checker_of(item_class: type) -> Checker:
    """Given a dataclass, return its checker: always the same one."""
    return Checker(item_class)


def unread_annotations(item_class: type) -> list[str]:
    """Given a dataclass, return which fields of it and of those nested in it are not checked."""
    seen, ahead, unread = {item_class}, [item_class], []
    while ahead:
        checker = checker_of(ahead.pop())
        unread += checker.unread
        ahead += checker.nested - seen
        seen |= checker.nested
    return unread


def a_type(kind: type) -> str:
    """Return the name of a type with its article: "a str", "an int"."""
    return with_article(kind.__name__)


def with_article(name: str) -> str:
    """Return a name of code with its article: U is mostly said "you"."""
    return f"an {name}" if name[:1].lower() in "aeio" else f"a {name}"


def is_without_value(value: Any) -> bool:
    """Return True for None, and for a text or collection that holds nothing."""
    return value is None or (type(value) in _SIZED and not value)


# -- annotations -----------------------------------------------------------------------------------


def rule_of(annotation: Any) -> Rule:
    """Given an annotation, resolved, return what it allows. Raise Unreadable."""
    if annotation is None or annotation is NoneType:
        return Rule("None", frozenset({NoneType}), partial(_not_an_instance, (NoneType,), "None"))
    if annotation is Any or annotation is object:
        return ANYTHING
    bare = _bare(annotation)
    if bare is not annotation:
        return rule_of(bare)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _one_of([rule_of(each) for each in arguments])
    if origin is Literal:
        return _literal(arguments)
    if origin is not None and arguments:
        return _generic(origin, arguments)
    return _class(origin or annotation)


def _bare(annotation: Any) -> Any:
    """Return what an annotation wraps: Annotated[T, ...], Final[T], a NewType or an alias of T."""
    if get_origin(annotation) in (Annotated, Final):
        return get_args(annotation)[0]
    # A NewType, and from Python 3.12 on the type alias of a `type` statement.
    for name in ("__supertype__", "__value__"):
        if not isinstance(annotation, type) and hasattr(annotation, name):
            return getattr(annotation, name)
    return annotation


def _class(kind: Any) -> Rule:
    try:
        isinstance(None, kind)
    except TypeError as error:
        raise Unreadable from error
    if not isinstance(kind, type):
        raise Unreadable
    if dataclasses.is_dataclass(kind):
        return Rule(kind.__name__, frozenset(), partial(_look_into_dataclass, kind))
    kinds = (kind, *_ALSO.get(kind, ()))
    return Rule(kind.__name__, frozenset(kinds), partial(_not_an_instance, kinds, kind.__name__))


def _generic(origin: Any, arguments: tuple[Any, ...]) -> Rule:
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _tuple([rule_of(each) for each in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return _mapping(origin, *map(rule_of, arguments))
    if isinstance(origin, type) and issubclass(origin, _COLLECTIONS):
        return _collection(origin, rule_of(arguments[0]))
    raise Unreadable


def _one_of(rules: list[Rule]) -> Rule:
    names = list(dict.fromkeys(rule.allowed for rule in rules))
    allowed = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    exact = reduce(or_, (rule.exact for rule in rules))
    return Rule(allowed, exact, partial(_wrong_for_all, [rule.look for rule in rules], allowed))


def _literal(values: tuple[Any, ...]) -> Rule:
    allowed = " or ".join(map(repr, values))
    # True equals 1, but is not what Literal[1] means.
    return Rule(
        allowed, frozenset(), partial(_not_literally, {(type(each), each) for each in values}, allowed)
    )


def _collection(kind: type, inner: Rule) -> Rule:
    etc = ", ..." if kind is tuple else ""
    allowed = f"{kind.__name__}[{inner.allowed}{etc}]"
    return Rule(allowed, frozenset(), partial(_look_into_collection, kind, allowed, inner))


def _tuple(inner: list[Rule]) -> Rule:
    allowed = f"tuple[{', '.join(rule.allowed for rule in inner)}]"
    return Rule(allowed, frozenset(), partial(_look_into_tuple, allowed, inner))


def _mapping(kind: "type[Mapping[Any, Any]]", keys: Rule, values: Rule) -> Rule:
    allowed = f"{kind.__name__}[{keys.allowed}, {values.allowed}]"
    return Rule(allowed, frozenset(), partial(_look_into_mapping, kind, allowed, keys, values))


def _resolved(item_class: type, field: "dataclasses.Field[Any]") -> Any:
    """Return a field's annotation as an object. Raise Unreadable if a name in it is nowhere."""
    owner = next(
        (base for base in item_class.__mro__ if field.name in get_annotations(base)),
        item_class,
    )
    # One by one: a name that only a type checker imports must not cost the other fields their check.
    alone = SimpleNamespace(__annotations__={field.name: field.type})
    module = vars(sys.modules[owner.__module__]) if owner.__module__ in sys.modules else {}
    try:
        return get_type_hints(alone, module, {owner.__name__: owner}, include_extras=True)[field.name]
    except (NameError, SyntaxError, TypeError, AttributeError) as error:
        raise Unreadable from error


def _dataclasses_in(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        yield annotation
    for inner in get_args(annotation):
        yield from _dataclasses_in(inner)


def _text_of(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else repr(annotation)


# -- looking closer at a value ---------------------------------------------------------------------


def _nothing_wrong(_value: Any) -> None:
    return None


ANYTHING = Rule("anything", frozenset(), _nothing_wrong)


def _found(value: Any) -> str:
    return "None" if value is None else a_type(type(value))


def _not_an_instance(kinds: tuple[type, ...], allowed: str, value: Any) -> Wrong | None:
    impostor = _IMPOSTORS.get(kinds[0])
    if isinstance(value, kinds) and not (impostor and isinstance(value, impostor)):
        return None
    return Wrong("", _found(value), allowed)


def _not_literally(values: set[tuple[type, Any]], allowed: str, value: Any) -> Wrong | None:
    try:
        if (type(value), value) in values:
            return None
    except TypeError:
        pass  # What cannot be hashed is none of them.
    kinds = {kind for kind, _value in values}
    return Wrong("", f"another {type(value).__name__}" if type(value) in kinds else _found(value), allowed)


def _wrong_for_all(looks: list[Look], allowed: str, value: Any) -> Wrong | None:
    inside = None
    for look in looks:
        wrong = look(value)
        if wrong is None:
            return None
        # The right kind with something wrong inside: that is the one to speak of.
        inside = wrong if wrong.path else inside
    return inside or Wrong("", _found(value), allowed)


def _look_into_dataclass(kind: type, value: Any) -> Wrong | None:
    if not isinstance(value, kind):
        return Wrong("", _found(value), kind.__name__)
    return checker_of(kind).first_wrong(value)


def _look_into_collection(kind: type, allowed: str, inner: Rule, value: Any) -> Wrong | None:
    # A text is a sequence of texts to Python, and a mistake in an item.
    if not isinstance(value, kind) or isinstance(value, str | bytes):
        return Wrong("", _found(value), allowed)
    return _first_wrong(inner, value)


def _look_into_tuple(allowed: str, inner: list[Rule], value: Any) -> Wrong | None:
    if not isinstance(value, tuple):
        return Wrong("", _found(value), allowed)
    if len(value) != len(inner):
        return Wrong("", f"a tuple of {len(value)}", allowed)
    for index, (rule, each) in enumerate(zip(inner, value, strict=True)):
        wrong = None if type(each) in rule.exact else rule.look(each)
        if wrong is not None:
            return wrong._replace(path=f"[{index}]{wrong.path}")
    return None


def _look_into_mapping(
    kind: "type[Mapping[Any, Any]]", allowed: str, keys: Rule, values: Rule, value: Any
) -> Wrong | None:
    if not isinstance(value, kind):
        return Wrong("", _found(value), allowed)
    wrong = _first_wrong(keys, value)
    if wrong is not None:
        return Wrong("", f"{_found(value)} with {wrong.found} as a key", allowed)
    wrong = _first_wrong(values, value.values())
    # Not which key: it may be what the page said.
    return None if wrong is None else wrong._replace(path=f"[...]{wrong.path.partition(']')[2]}")


def _first_wrong(rule: Rule, values: Any) -> Wrong | None:
    if rule.exact.issuperset(map(type, values)):
        return None
    for index, value in enumerate(values):
        wrong = None if type(value) in rule.exact else rule.look(value)
        if wrong is not None:
            return wrong._replace(path=f"[{index}]{wrong.path}")
    return None


# -- texts -----------------------------------------------------------------------------------------


def _all_of(
    getter: Callable[..., Callable[[Any], Any]], places: list[Any]
) -> Callable[[Any], tuple[Any, ...]]:
    """Return what gets so many attributes, or indices, as a tuple: ``operator`` does from two on."""
    if len(places) > 1:
        return getter(*places)
    single = [getter(place) for place in places]
    return lambda item: tuple(get(item) for get in single)


def _sentence(wrong: list[tuple[str, Wrong]]) -> str:
    """Name the wrong fields and never a value: the text goes to the log."""
    named = [
        f"the field {name + found.path!r} is {found.found}"
        f"{', but required' if found.found == 'None' else ''}; allowed: {found.allowed}"
        for name, found in wrong[:_WRONG_FIELDS_NAMED]
    ]
    more = len(wrong) - len(named)
    return "; ".join(named) + (f"; and {more} fields more" if more else "")
