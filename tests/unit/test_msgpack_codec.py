"""The msgpack codec: values keep their types, classes are built only when known, bad bytes raise CodecError."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, Flag, IntEnum, IntFlag, StrEnum
from fractions import Fraction
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, RootModel, field_validator

from cachekit.codecs.base import Codec
from cachekit.codecs.msgpack import MsgpackCodec
from cachekit.errors import CodecError, ConfigError

BERLIN = ZoneInfo("Europe/Berlin")
T = TypeVar("T")


class Colour(Enum):
    RED = "r"
    CRIMSON = "r"  # noqa: PIE796 - an alias is the point
    BLUE = (0, 0, 255)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    HELLO = "hello"


class Access(Flag):
    READ = 1
    WRITE = 2


class Bits(IntFlag):
    ONE = 1


class Point(NamedTuple):
    x: int
    y: int = 0


Pair = namedtuple("Pair", "left right")  # noqa: PYI024 - this kind too


@dataclass
class Owner:
    name: str
    colour: Colour = Colour.RED


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    id: int
    owner: Owner
    parts: tuple[Product, ...] = ()
    total: int = field(init=False, default=0)


class Address(BaseModel):
    city: str


class Customer(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(alias="customerName")
    secret: str = Field(default="", exclude=True)
    homes: list[Address | Owner] = []
    nick: str | None = None
    _visits: int = PrivateAttr(default=0)


class Inventory(RootModel[dict[str, Address]]):
    pass


class Page(BaseModel, Generic[T]):
    items: list[T]


KNOWN = (Colour, Level, Word, Access, Bits, Point, Pair, Owner, Product, Address, Customer, Inventory, Page[Address])


@pytest.fixture
def codec() -> MsgpackCodec:
    return MsgpackCodec(*KNOWN)


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal and made of the same types, NaN equal to itself and -0.0 not to 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return math.isnan(b) if math.isnan(a) else (a == b and math.copysign(1, a) == math.copysign(1, b))
    if isinstance(a, Decimal | complex):
        return repr(a) == repr(b)
    if isinstance(a, list | tuple | deque):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    return a == b


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    10**5000,
    -(10**5000),
    1.5,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "grüß 🎉 \0",
    b"",
    b"\xc1\x00",
    [],
    (),
    (1, (2, [3, ()])),
    [(), ((),)],
    {},
    {1: "int", None: "none", (1, (2,)): "tuple", False: "bool", 2.5: "float", b"b": "bytes", 2**70: "big"},
    {1: "plain int", None: 2.5, False: b"x", -(2**40): []},
    {frozenset({1}): {2}},
    set(),
    {1, "a", (2, 3)},
    frozenset({frozenset(), 1}),
    complex(1, -0.0),
    complex("nan+infj"),
    datetime(1, 1, 1),
    datetime(2024, 2, 29, 12, 30, 15, 123456),
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=45, seconds=7, microseconds=9))),
    datetime(2024, 1, 1, tzinfo=timezone(-timedelta(hours=3), "BRT")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(microseconds=1))),
    time(1, 2, tzinfo=timezone(timedelta(microseconds=-1))),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN),
    date(9999, 12, 31),
    time(23, 59, 59, 999999),
    time(1, 2, tzinfo=UTC),
    time(1, 2, tzinfo=BERLIN),
    timedelta.min,
    timedelta.max,
    timedelta(microseconds=-1),
    UTC,
    BERLIN,
    Decimal(0),
    Decimal("-0.00"),
    Decimal("1E+1000"),
    Decimal("NaN"),
    Decimal("-sNaN123"),
    Decimal("-Infinity"),
    Decimal(1) / Decimal(7),
    Fraction(-7, 3),
    Fraction(10**40, 3),
    UUID(int=2**128 - 1),
    PurePosixPath("/a/../b"),
    PurePosixPath("caf\udce9"),
    PureWindowsPath("C:\\x"),
    Path("relative/x.txt"),
    ipaddress.ip_address("127.0.0.1"),
    ipaddress.ip_address("fe80::1%eth0"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("2001:db8::/32"),
    ipaddress.ip_interface("10.1.2.3/8"),
    ipaddress.ip_interface("::1/64"),
    OrderedDict([("b", 1), ("a", (2,))]),
    Counter({"a": 3, "b": -1, "c": 0}),
    defaultdict(None, {1: 2}),
    defaultdict(list, {"a": [1]}),
    deque([1, (2,)], maxlen=5),
    deque([]),
    Colour.RED,
    Colour.BLUE,
    Level.LOW,
    Word.HELLO,
    Access.READ | Access.WRITE,
    Access(0),
    Bits(1 | 64),
    {Level.LOW: Word.HELLO, Point(1): Pair((1,), [2])},
    Point(1, 2),
    [Pair(Point(3), {Point(4)})] * 3,
    Owner("ann"),
    Product(id=1, owner=Owner("bob", Colour.BLUE), parts=(Product(id=2, owner=Owner("x")),)),
    Address(city="Rome"),
    Inventory({"a": Address(city="Oslo")}),
    Page[Address](items=[Address(city="Bern")]),
]


def label(value: Any) -> str:
    text = type(value).__name__ if isinstance(value, int) else f"{type(value).__name__} {value!a}"
    return text[:60]


@pytest.mark.parametrize("value", VALUES, ids=label)
def test_a_value_comes_back_equal_and_with_the_same_types(codec: MsgpackCodec, value: Any) -> None:
    assert same(codec.decode(codec.encode(value)), value)
    assert same(codec.decode(codec.encode([{"a": (value,)}])), [{"a": (value,)}])


def test_it_implements_the_port() -> None:
    port: Codec = MsgpackCodec()
    assert port.id == 1


def test_plain_values_are_plain_msgpack(codec: MsgpackCodec) -> None:
    value = {"a": [1, 2.5, None, "x", b"y", {"b": True}]}
    assert codec.encode(value) == msgpack.packb(value)
    assert codec.decode(msgpack.packb(value)) == value


@pytest.mark.parametrize("value", [bytearray(b"ab"), memoryview(b"ab")])
def test_byte_buffers_come_back_as_bytes(codec: MsgpackCodec, value: Any) -> None:
    assert same(codec.decode(codec.encode([value])), [b"ab"])


def test_zone_key_fold_and_name_survive(codec: MsgpackCodec) -> None:
    second = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)
    back = codec.decode(codec.encode(second))
    assert (back.tzinfo, back.fold, back.utcoffset()) == (BERLIN, 1, timedelta(hours=1))
    for naive in (datetime(2024, 1, 1, fold=1), time(2, 30, fold=1)):
        back = codec.decode(codec.encode(naive))
        assert (back, back.fold, back.tzinfo) == (naive, 1, None)
    named = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET"))
    assert codec.decode(codec.encode(named)).tzname() == "CET"
    assert codec.decode(codec.encode(datetime(2024, 1, 1, tzinfo=UTC))).tzinfo is UTC


def test_a_class_is_named_once_per_payload(codec: MsgpackCodec) -> None:
    one = len(codec.encode([Address(city="x")]))
    many = len(codec.encode([Address(city="x")] * 101))
    assert many < one + 101 * 12
    rows = [make_dataclass(f"C{index}", [("x", int)]) for index in range(300)]
    wide = MsgpackCodec(*rows)
    value = [row(index) for index, row in enumerate(rows)] * 2
    assert wide.decode(wide.encode(value)) == value


class TestModels:
    def test_alias_exclude_extra_private_and_fields_set_survive(self, codec: MsgpackCodec) -> None:
        customer = Customer(customerName="ann", secret="s", homes=[Address(city="Rome"), Owner("x")], shoe=(43,))
        customer._visits = 7
        back = codec.decode(codec.encode([customer]))[0]
        assert back == customer
        assert (back.secret, back._visits, back.shoe) == ("s", 7, (43,))
        assert [type(home) for home in back.homes] == [Address, Owner]
        assert back.model_fields_set == customer.model_fields_set
        assert back.model_dump(exclude_unset=True) == customer.model_dump(exclude_unset=True)

    def test_validators_do_not_run_again(self) -> None:
        class Account(BaseModel):
            password: str

            @field_validator("password")
            @classmethod
            def scramble(cls, value: str) -> str:
                return value[::-1]

        codec = MsgpackCodec(Account)
        account = Account(password="abc")
        assert codec.decode(codec.encode(account)).password == "cba" == account.password

    def test_private_attribute_without_a_value(self) -> None:
        class Lazy(BaseModel):
            _handle: int

        codec = MsgpackCodec(Lazy)
        back = codec.decode(codec.encode(Lazy()))
        assert back == Lazy()
        with pytest.raises(AttributeError):
            _ = back._handle

    def test_state_that_would_be_lost_is_refused(self, codec: MsgpackCodec) -> None:
        partial = Customer.model_construct()
        del partial.__dict__["nick"]
        with pytest.raises(CodecError, match="lacks"):
            codec.encode([partial])
        odd = Address(city="x")
        odd.__dict__["_state"] = 1
        with pytest.raises(CodecError, match="would be lost"):
            codec.encode(odd)

    def test_trouble_inside_is_found(self, codec: MsgpackCodec) -> None:
        customer = Customer(customerName="ann", lock=object())
        with pytest.raises(CodecError) as caught:
            codec.encode((customer,))
        assert caught.value.path == "[0].__pydantic_extra__['lock']"


class TestDataclasses:
    def test_they_are_restored_not_constructed(self) -> None:
        made: list[str] = []

        @dataclass
        class Noisy:
            name: str

            def __post_init__(self) -> None:
                made.append(self.name)
                self.upper = self.name.upper()

            @cached_property
            def heavy(self) -> object:
                return object()

        codec = MsgpackCodec(Noisy)
        noisy = Noisy("a")
        assert noisy.heavy is noisy.heavy
        back = codec.decode(codec.encode(noisy))
        assert back == noisy
        assert made == ["a"]
        assert back.upper == "A"
        assert "heavy" not in vars(back)

    def test_a_field_that_is_not_set_is_refused(self) -> None:
        @dataclass(slots=True)
        class Half:
            x: int = field(init=False)

        with pytest.raises(CodecError, match="not set"):
            MsgpackCodec(Half).encode(Half())

    @pytest.mark.parametrize("new_fields", [[("x", int)], [("x", int), ("z", int)], [("x", str), ("y", int)], []])
    def test_a_changed_shape_is_a_miss(self, new_fields: list[tuple[str, type]]) -> None:
        old, new = make_dataclass("Row", [("x", int), ("y", int)]), make_dataclass("Row", new_fields)
        data = MsgpackCodec(old).encode([old(1, 2)])
        with pytest.raises(CodecError, match="changed"):
            MsgpackCodec(new).decode(data)

    @pytest.mark.parametrize("count", [0, 1, 3, 4])
    def test_a_wrong_number_of_values_is_no_type_error(self, codec: MsgpackCodec, count: int) -> None:
        good = codec.encode(Owner("abc", 5))  # type: ignore[arg-type]
        assert good.count(b"\x93") == 1
        head = good[: good.index(b"\xa3abc")].replace(b"\x93", bytes([0x91 + count]), 1)
        with pytest.raises(CodecError):
            codec.decode(head + b"\x05" * count)

    def test_hidden_state_is_refused_at_registration(self) -> None:
        class Base:
            __slots__ = ("_hash",)

        @dataclass
        class Child(Base):
            x: int

        @dataclass
        class Failure(Exception):
            code: int

        for cls, reason in ((Child, "_hash"), (Failure, "derives from")):
            with pytest.raises(ConfigError, match=reason):
                MsgpackCodec(cls)
            MsgpackCodec().learn(cls)


class TestRefusals:
    @pytest.mark.parametrize(
        ("value", "path", "type_name"),
        [
            (object(), "", "object"),
            ([1, 2, {"a": (object(),)}], "[2]['a'][0]", "object"),
            ({"k": {1: [print]}}, "['k'][1][0]", "builtin_function_or_method"),
            ({(1, object()): 1}, ".keys()[0][1]", "object"),
            ({(1,): object()}, ".values()[0]", "object"),
            ([{object()}], "[0]{...}", "object"),
            (Owner("x", object()), ".colour", "object"),  # type: ignore[arg-type]
            ([Point(1, object())], "[0].y", "object"),  # type: ignore[arg-type]
            (["ok", "\ud800"], "[1]", "str"),
            ({"\ud800": 1}, ".keys()[0]", "str"),
            ([type("MyStr", (str,), {})("x")], "[0]", "test_msgpack_codec:MyStr"),
            (type("MyInt", (int,), {})(1), "", "test_msgpack_codec:MyInt"),
            (type("MyDict", (dict,), {})(), "", "test_msgpack_codec:MyDict"),
            (type("MyDate", (datetime,), {})(2024, 1, 1), "", "test_msgpack_codec:MyDate"),
            ([defaultdict(lambda: 1)], "[0]", "collections.defaultdict"),
            (deque([object()]), "[0]", "object"),
            (Counter({object(): 1}), ".keys()[0]", "object"),
        ],
    )
    def test_it_says_where_and_what(self, codec: MsgpackCodec, value: Any, path: str, type_name: str) -> None:
        with pytest.raises(CodecError) as caught:
            codec.encode(value)
        assert caught.value.path == path
        assert caught.value.type_name.split(".")[-1].endswith(type_name.split(".")[-1])
        if path:
            assert str(caught.value).startswith(f"at {path}: ")

    @pytest.mark.parametrize("value", [Colour.RED, Owner("x"), Point(1), Address(city="x")])
    def test_an_unknown_class_says_what_to_do(self, value: Any) -> None:
        with pytest.raises(CodecError) as caught:
            MsgpackCodec().encode([0, {"owner": value}])
        name = type(value).__name__
        assert caught.value.path == "[1]['owner']"
        assert caught.value.type_name == f"{type(value).__module__}:{name}"
        assert "annotate the return type of the cached function" in str(caught.value)
        assert f"codec.register({name})" in str(caught.value)

    def test_a_path_may_end_in_a_field(self) -> None:
        with pytest.raises(CodecError) as caught:
            MsgpackCodec(Owner, Product).encode([Product(id=1, owner=Owner("x"))])
        assert caught.value.path == "[0].owner.colour"

    def test_a_time_zone_of_another_kind(self, codec: MsgpackCodec) -> None:
        class Odd(tzinfo):
            def utcoffset(self, moment: datetime | None) -> timedelta:
                return timedelta(0)

        with pytest.raises(CodecError, match="ZoneInfo") as caught:
            codec.encode([datetime(2024, 1, 1, tzinfo=Odd())])
        assert caught.value.path == "[0]"

    def test_a_value_that_contains_itself(self, codec: MsgpackCodec) -> None:
        loop: list[Any] = []
        loop.extend([loop, loop])
        owner = Owner("x")
        owner.name = (owner,)  # type: ignore[assignment]
        for value in (loop, owner):
            with pytest.raises(CodecError, match="contains itself"):
                codec.encode(value)

    @pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: Owner(v)])
    def test_depth(self, codec: MsgpackCodec, wrap: Callable[[Any], Any]) -> None:
        value: Any = 1
        for _ in range(1000):
            value = wrap(value)
        back = codec.decode(codec.encode(value))
        for _ in range(1000):
            assert type(back) is type(value)
            back, value = (
                (v.name if isinstance(v, Owner) else next(iter(v.values() if isinstance(v, dict) else v)))
                for v in (back, value)
            )
        for _ in range(5000):
            value = wrap(value)
        with pytest.raises(CodecError, match="deeper"):
            codec.encode(value)

    def test_a_class_that_misbehaves(self) -> None:
        @dataclass
        class Trap:
            x: int

            @property
            def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
                raise RuntimeError("boom")

        with pytest.raises(CodecError, match="boom"):
            MsgpackCodec(Trap).encode([Trap(1)])

    def test_trouble_that_is_gone_when_it_is_looked_for(self) -> None:
        @dataclass
        class Moody:
            x: int

            def __getattribute__(self, name: str) -> Any:
                if name == "x" and moods:
                    raise moods.pop()
                return object.__getattribute__(self, name)

        moods = [OSError("mood")]
        codec = MsgpackCodec(Moody)
        with pytest.raises(CodecError, match="OSError: mood") as caught:
            codec.encode([Moody(1)])
        assert (caught.value.path, caught.value.type_name) == ("", "list")

    def test_the_search_stays_silent_about_its_own_trouble(self, codec: MsgpackCodec) -> None:
        class Key(str):
            __slots__ = ()

            def __repr__(self) -> str:
                raise RuntimeError("no repr")

        with pytest.raises(CodecError, match="plain str") as caught:
            codec.encode({1: [Key("a")]})
        assert caught.value.path == "[1][0]"
        with pytest.raises(CodecError, match="plain str") as caught:
            codec.encode({Key("a"): object()})
        assert caught.value.path == ".keys()[0]"

        class Meta(type):
            def __getattribute__(cls, name: str) -> Any:
                if name == "__module__":
                    raise RuntimeError("no module")
                return super().__getattribute__(name)

        with pytest.raises(CodecError, match="no module"):
            codec.encode([Meta("Nameless", (), {})()])

    def test_state_beside_the_fields_has_a_path(self, codec: MsgpackCodec) -> None:
        owner = Owner("x")
        owner.lock = object()  # type: ignore[attr-defined]
        with pytest.raises(CodecError) as caught:
            codec.encode(owner)
        assert caught.value.path == ".__dict__['lock']"

    def test_an_enum_member_that_is_not_found_by_name(self) -> None:
        class Open(Enum):
            A = 1

            @classmethod
            def _missing_(cls, value: object) -> Any:
                member = object.__new__(cls)
                member._name_, member._value_ = f"X{value}", value
                return member

        with pytest.raises(CodecError, match="by its name"):
            MsgpackCodec(Open).encode(Open(7))

    def test_a_namedtuple_with_attributes(self) -> None:
        class Wide(Point):
            pass

        wide = Wide(1, 2)
        codec = MsgpackCodec(Wide)
        assert same(codec.decode(codec.encode(wide)), wide)
        wide.note = "x"  # type: ignore[attr-defined]
        with pytest.raises(CodecError, match="would be lost"):
            codec.encode(wide)


class TestRegister:
    def test_a_namedtuple_of_another_length(self) -> None:
        codec = MsgpackCodec(Pair)
        data = codec.encode(Pair(5, 6))
        assert data[1] == 0x93
        with pytest.raises(CodecError, match="has 2 fields"):
            codec.decode(data[:1] + b"\x92" + data[2:-1])

    def test_as_a_decorator(self) -> None:
        codec = MsgpackCodec()

        @codec.register
        class One(Enum):
            A = 1

        @codec.register(name="two")
        @dataclass
        class Two:
            x: int

        assert codec.decode(codec.encode((One.A, Two(1)))) == (One.A, Two(1))
        assert b"two" in codec.encode(Two(1))
        assert codec.register(Point) is Point

    def test_data_of_an_unknown_name_is_not_built(self, codec: MsgpackCodec) -> None:
        for value in (Owner("x"), Colour.RED, Point(1), Address(city="x")):
            with pytest.raises(CodecError, match="not registered"):
                MsgpackCodec().decode(codec.encode(value))

    def test_a_name_never_causes_an_import(self, codec: MsgpackCodec) -> None:
        data = codec.encode(Owner("x")).replace(b"test_msgpack_codec:Owner", b"antigravity_is_bad:Owner")
        with pytest.raises(CodecError, match="not registered"):
            codec.decode(data)

    def test_a_newer_class_of_the_same_name_replaces_the_older(self) -> None:
        old, new = make_dataclass("Row", [("x", int)]), make_dataclass("Row", [("x", int)])
        codec = MsgpackCodec(old)
        data = codec.encode(old(1))
        codec.register(new)
        assert same(codec.decode(data), new(1))
        with pytest.raises(CodecError, match="not registered"):
            codec.encode(old(1))

    def test_another_class_cannot_take_a_name(self) -> None:
        codec = MsgpackCodec()
        codec.register(Owner, "thing")
        codec.register(Owner, "thing")
        with pytest.raises(ConfigError, match="thing"):
            codec.register(Point, "thing")

    def test_an_old_name_is_still_read(self) -> None:
        codec = MsgpackCodec()
        codec.register(Owner, "v1")
        codec.register(Colour)
        data = codec.encode(Owner("x"))
        codec.register(Owner, "v2")
        assert codec.decode(data) == Owner("x")
        assert b"v2" in codec.encode(Owner("x"))
        codec.learn(Owner)
        assert b"v2" in codec.encode(Owner("x"))

    @pytest.mark.parametrize("thing", [int, tuple, object, 5, "Owner", list[int], type("T", (tuple,), {})])
    def test_what_cannot_be_registered(self, thing: Any) -> None:
        with pytest.raises(ConfigError):
            MsgpackCodec().register(thing)


class Leaf(Enum):
    A = 1


@dataclass
class Node:
    leaf: Leaf
    children: list[Node]
    missing: NotImported | None = None  # type: ignore[name-defined]  # noqa: F821


class Row(TypedDict):
    node: Node


class Box(NamedTuple):
    leaf: Optional[Leaf]  # noqa: UP045 - the old spelling too


@dataclass
class Crate(Generic[T]):
    content: T


class Form(BaseModel):
    leaf: Leaf
    again: Form | None = None


Alias = dict[str, Union[Node, None]]  # noqa: UP007 - the old spelling too
Identifier = NewType("Identifier", Leaf)
Bound = TypeVar("Bound", bound=Leaf)


class TestLearn:
    @pytest.mark.parametrize(
        ("annotation", "value"),
        [
            (Leaf, Leaf.A),
            (list[Leaf], Leaf.A),
            (dict[str, "Leaf | None"] | dict[str, Leaf | None], Leaf.A),
            (Optional[Leaf], Leaf.A),  # noqa: UP045 - the old spelling too
            (Annotated[Leaf, "note"], Leaf.A),
            (Literal[Leaf.A], Leaf.A),
            (Alias, Node(Leaf.A, [Node(Leaf.A, [])])),
            (Identifier, Leaf.A),
            (Bound, Leaf.A),
            (Callable[[Leaf], int], Leaf.A),
            (Awaitable[tuple[Leaf, ...]], Leaf.A),
            (Row, {"node": Node(Leaf.A, [])}),
            (Box, Box(Leaf.A)),
            (Crate[Leaf], Crate(Leaf.A)),
            (Form, Form(leaf=Leaf.A, again=Form(leaf=Leaf.A))),
            (Page[Form], Page[Form](items=[Form(leaf=Leaf.A)])),
        ],
        ids=str,
    )
    def test_it_finds_classes_at_any_depth(self, annotation: Any, value: Any) -> None:
        codec = MsgpackCodec()
        codec.learn(annotation)
        assert same(codec.decode(codec.encode(value)), value)

    @pytest.mark.parametrize(
        "annotation", [None, Any, int, "Leaf", list, Enum, Callable, T, ..., 5, object(), Literal["x"]]
    )
    def test_it_ignores_everything_else(self, annotation: Any) -> None:
        MsgpackCodec().learn(annotation)

    def test_names_and_cycles_that_cannot_be_resolved(self) -> None:
        codec = MsgpackCodec()
        codec.learn(Node)
        assert codec.decode(codec.encode(Node(Leaf.A, []))) == Node(Leaf.A, [])

    def test_one_unresolvable_name_does_not_hide_the_others(self) -> None:
        @dataclass
        class Half:
            leaf: Leaf
            other: NotImported | None = None  # type: ignore[name-defined]  # noqa: F821

        codec = MsgpackCodec()
        codec.learn(list[Half])
        assert codec.decode(codec.encode(Half(Leaf.A))) == Half(Leaf.A)

    def test_the_shape_is_the_same_text_in_every_process(self) -> None:
        def declare() -> Any:
            return make_dataclass("Odd", [("a", Annotated[int, object()]), ("b", list["Leaf"] | None)])

        Odd, same_again = declare(), declare()
        data = MsgpackCodec(Odd).encode(Odd(1, None))
        assert type(MsgpackCodec(same_again).decode(data)) is same_again

    def test_a_type_alias_statement(self) -> None:
        TypeAliasType = pytest.importorskip("typing_extensions").TypeAliasType
        codec = MsgpackCodec()
        codec.learn(TypeAliasType("Leaves", list[Leaf]))
        assert codec.decode(codec.encode(Leaf.A)) is Leaf.A


class TestBadBytes:
    GOOD = [Point(1), {"a": (Colour.RED, Owner("x"))}, {1}, Address(city="x"), Access.READ, OrderedDict(a=1)]

    @pytest.mark.parametrize("value", GOOD, ids=label)
    def test_truncated_or_longer(self, codec: MsgpackCodec, value: Any) -> None:
        data = codec.encode(value)
        for end in range(len(data)):
            with pytest.raises(CodecError):
                codec.decode(data[:end])
        with pytest.raises(CodecError):
            codec.decode(data + b"\xc0")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xc1",
            b"\xc1\xc1",
            b"\xc7\x00\x20",  # a mark in a payload without marks
            b"\xc1\xc7\x00\x20",  # a mark that is no first item
            b"\xc1\x92\x01\xc7\x00\x20",
            b"\xc1\x92\xc7\x00\x20\xc7\x00\x20",
            b"\xc1\x81\xc7\x00\x20\x01",
            b"\xc1\x92\xd4\x31\x00\x01",  # a further instance of a class before any
            b"\xc1\x92\xd4\x31\xff\x01",
            b"\xc1\x92\xc7\x00\x21\x90",  # a set of lists
            b"\xc1\x92\xc7\x00\x23\x01",  # an OrderedDict of an int
            b"\xc1\x93\xc7\x00\x25\xa4open\x80",  # a defaultdict of open()
            b"\xd4\x7f\x00",  # an unknown extension
            b"\x81\x90\x01",  # a list as a key
            b"\xa2\xff\xff",  # no UTF-8
            b"\x91" * 1025 + b"\x01",
            b"\xdd\xff\xff\xff\xff" * 1000,
            b"\xc9\xff\xff\xff\xff\x03",
            b"\xd6\x04\x00\x00\x00\x01",  # a fraction without a denominator
            msgpack.packb(msgpack.ExtType(7, b"\x00\x00\x0azEtc/Nowhere2024-01-01T00:00:00")),
            msgpack.packb(msgpack.ExtType(7, b"\x00\x00\x0bz../../etc/2024-01-01T00:00:00")),
            msgpack.packb(msgpack.ExtType(12, b"?")),
            msgpack.packb(msgpack.ExtType(13, b"\x63x")),
        ],
    )
    def test_foreign_bytes(self, codec: MsgpackCodec, data: bytes) -> None:
        with pytest.raises(CodecError):
            codec.decode(data)

    def test_state_of_a_model_is_checked(self, codec: MsgpackCodec) -> None:
        good = codec.encode(Address(city="xyz"))
        assert good.endswith(b"\xa3xyz\xc0\xc0\xc0")
        for end in (b"\x01\xc0\xc0", b"\xc0\x91\x01\xc0", b"\xc0\xc0\x81\x01\x01"):
            with pytest.raises(CodecError):
                codec.decode(good[:-3] + end)
        shorter = good.replace(b"\x95", b"\x94", 1)[:-1]
        with pytest.raises(CodecError):
            codec.decode(shorter)

    def test_a_flag_with_unknown_bits(self, codec: MsgpackCodec) -> None:
        data = codec.encode(Access.READ)
        with pytest.raises(CodecError):
            codec.decode(data[:-1] + b"\x40")
        with pytest.raises(CodecError):
            codec.decode(codec.encode(Colour.RED)[:-4] + b"\xa3PUB")
