"""What cannot come back is refused where it is produced, with the path and with what to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from durably.codec.payloads import PydanticCodec
from durably.core.errors import DefinitionError, PayloadError
from tests.unit.codec.samples import (
    Box,
    Color,
    GiftLine,
    Hidden,
    InsuredParcel,
    Level,
    Line,
    Login,
    Movie,
    Order,
    Parcel,
    Point,
    Private,
    Required,
    Tree,
)


class Lossy(BaseModel):
    a: int = 0

    @field_serializer("a")
    def write(self, value: int) -> int:
        if value < 0:
            raise KeyError("negative")
        return value // 2


class Shouting(BaseModel):
    a: str

    @field_validator("a")
    @classmethod
    def shout(cls, value: str) -> str:
        return value + "!"


def _private() -> Private:
    model = Private()
    model._state = 1
    return model


def _assigned(value: Any) -> Order:
    order = Order(lines=[Line(), Line()])
    order.lines[1].price = value
    return order


def _cyclic() -> Tree:
    tree = Tree()
    tree.children += [tree, tree]
    return tree


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


_BERLIN = ZoneInfo("Europe/Berlin")

REFUSED: list[tuple[Any, Any, str, str]] = [
    (int, "3", "", "a valid integer"),
    (int, True, "", "a valid integer"),
    (str, 3, "", "a valid string"),
    (list[int], (1,), "", "a valid list"),
    (list[int], [1, "2"], "[1]", "a valid integer"),
    (None, 1, "", "None"),
    (Line, {"sku": "a"}, "", "Send a Line"),
    (Color, "red", "", "an instance of Color"),
    (dict[str, list[int]], {"a b": [1, None]}, "['a b'][1]", "a valid integer"),
    (int | str, 1.5, "", "a valid integer or a valid string"),
    (float, math.nan, "", "a finite number"),
    (float, math.inf, "", "a finite number"),
    (list[float | None], [None, math.nan], "[1]", "finite number"),
    (float, Decimal("0.1"), "", "comes back from JSON as it was sent"),
    (float, 2**60 + 1, "", "comes back from JSON as it was sent"),
    (list[float], [1.5, 2**60 + 1], "[1]", "comes back from JSON as it was sent"),
    (time, time(2, 30, tzinfo=_BERLIN), "", "comes back from JSON as it was sent"),
    (Any, {"a": [math.inf]}, "a[0]", "no NaN"),
    (Order, _assigned(math.nan), "lines[1].price", "no NaN"),
    (Order, _assigned("3"), "lines[1].price", "as it was sent, '3' (str), got 3.0 (float)"),
    (Order, _assigned(object()), "lines[1].price", "has no JSON form"),
    (Order, Order(lines=[GiftLine()]), "lines[0]", "GiftLine is a subclass"),
    (dict[str, Order], {"x": Order(lines=[Line(), GiftLine()])}, "x.lines[1]", "GiftLine is a subclass"),
    (Parcel, InsuredParcel(1), "", "InsuredParcel is a subclass"),
    (list[Parcel], [Parcel(weight="1")], "[0].weight", "as it was sent, '1' (str)"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (Hidden, Hidden(hidden=1), "hidden", "exclude=True"),
    (Required, Required(hidden=1), "hidden", "exclude=True"),
    (Private, _private(), "_state", "Private attributes"),
    (Login, Login(password="x"), "password", "secret"),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    (Movie, {"title": "a", "rating": 1}, "rating", "would vanish"),
    (Box[int], Box(content=1), "", "Send a Box[int]"),
    (datetime | str, "2026-01-02T03:04:05", "", "look alike"),
    (Color | str, Color.RED, "", "plain JSON"),
    (bytes | str, "abcd", "", "look alike"),
    (datetime, datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=_BERLIN), "", "astimezone(UTC)"),
    (datetime, datetime(1880, 1, 1, tzinfo=_BERLIN), "", "astimezone(UTC)"),
    (Any, (1,), "", "Annotate tuple"),
    (Any, [{"a": {1}}], "[0].a", "Annotate set"),
    (Any, {1: 2}, "[1]", "Annotate dict["),
    (Any, Line(), "", "Annotate Line"),
    (Any, datetime(2026, 1, 1, tzinfo=UTC), "", "Annotate datetime"),
    (Any, [b"a"], "[0]", "Annotate bytes"),
    (Any, Level.LOW, "", "Annotate Level"),
    (Any, [object()], "[0]", "no JSON form"),
    (Any, Point(1, 2.0), "", "Annotate Point"),
    (Sequence[int], (1,), "", "Annotate tuple"),
    (Iterable[int], [1], "", "Annotate list"),
    (Callable[[], int], print, "", "no JSON form"),
    (dict[tuple[int, int], int], {(1, 2): 3}, "['1,2']", "a valid array"),
    (list[str], ["a", "\ud800"], "[1]", "lone surrogate"),
    (dict[str, int], {"\ud800": 1}, "['\\ud800']", "lone surrogate"),
    (Any, {"a": "\ud800"}, "a", "lone surrogate"),
    (Tree, _cyclic(), "", "levels of nesting"),
    (Any, _deep(300), "", "levels of nesting"),
    (Any, _deep(20_000), "", "levels of nesting"),
    (int, 10**5000, "", "number out of range"),
    (Lossy, Lossy(a=3), "a", "each other's inverse"),
    (Lossy, Lossy(a=-3), "", "KeyError"),
    (Shouting, Shouting(a="x"), "a", "each other's inverse"),
]


@pytest.mark.parametrize("warm", [False, True], ids=["first use", "later use"])
@pytest.mark.parametrize(
    ("annotation", "value", "path", "says"), REFUSED, ids=[str(number) for number in range(len(REFUSED))]
)
def test_a_value_that_would_not_come_back_is_refused(
    annotation: Any, value: Any, path: str, says: str, warm: bool
) -> None:
    shape = PydanticCodec().value(annotation)
    good: dict[Any, Any] = {int: 1, float: 1.0, list[str]: ["a"], Order: Order(), Any: 1, Parcel: Parcel(1)}
    good |= {list[float]: [1.0], time: time(1)}
    if warm and annotation in good:
        shape.encode(good[annotation])
    with pytest.raises(PayloadError) as caught:
        shape.encode(value)
    assert (
        caught.value.path.encode("utf-8", "backslashreplace").decode()
        == path.encode("utf-8", "backslashreplace").decode()
    )
    assert says in str(caught.value)
    str(caught.value).encode()


def test_a_refusal_says_what_was_expected_what_was_got_why_and_what_to_do(codec: PydanticCodec) -> None:
    with pytest.raises(PayloadError) as caught:
        codec.value(Order).encode(_assigned(math.nan))
    assert str(caught.value) == (
        "value of Order, at lines[1].price: expected a value that comes back from JSON as it was sent, nan (float), "
        "got None. JSON has no NaN and no infinity. Send None (float | None) or a string instead."
    )


def test_a_secret_is_not_repeated_in_the_message(codec: PydanticCodec) -> None:
    with pytest.raises(PayloadError) as caught:
        codec.value(Login).encode(Login(password="hunter2"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert "hunter2" not in str(caught.value)


def test_a_payload_over_the_limit_is_refused_and_one_at_the_limit_is_not() -> None:
    shape = PydanticCodec(max_bytes=100).value(str)
    assert len(shape.encode("x" * 98)) == 100
    with pytest.raises(PayloadError, match=r"at most 100 bytes of JSON, got 101\..*pass a reference"):
        shape.encode("x" * 99)


def test_the_limit_is_four_mebibytes_unless_given(codec: PydanticCodec) -> None:
    shape = codec.value(str)
    shape.encode("x" * (4 * 1024 * 1024 - 2))
    with pytest.raises(PayloadError, match="at most 4,194,304 bytes"):
        shape.encode("x" * (4 * 1024 * 1024 - 1))


@pytest.mark.parametrize(
    ("annotation", "text", "path", "says"),
    [
        (int, "{", "", "valid JSON"),
        (int, "", "", "valid JSON"),
        (str, '"\\ud800"', "", "valid JSON"),
        (Any, "\ud800", "", "string"),
        (Any, '{"a":[NaN]}', "a[0]", "finite"),
        (Line, '{"price":-Infinity}', "price", "finite"),
        (Any, "[" * 300 + "]" * 300, "", "recursion limit"),
        (Order, '{"lines":[{},{"price":"x"}]}', "lines[1].price", "a valid number"),
        (Required, "{}", "hidden", "the field is required"),
        (Line | Parcel, '{"sku":1,"weight":1.5}', "sku", "a valid string"),
        (bytes, '"\u00e9"', "", "base64"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_the_path(
    codec: PydanticCodec, annotation: Any, text: str, path: str, says: str
) -> None:
    with pytest.raises(PayloadError) as caught:
        codec.value(annotation).decode(text)
    assert caught.value.path == path
    assert says in str(caught.value)


def test_text_about_nan_is_text(codec: PydanticCodec) -> None:
    assert codec.value(Any).decode('"NaN and Infinity"') == "NaN and Infinity"
    assert codec.value(str).encode("NaN") == '"NaN"'


class Opaque:
    pass


@pytest.mark.parametrize("annotation", [Opaque, list[Opaque], "Missing", list["Missing"]])  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]
def test_an_annotation_that_pydantic_cannot_handle_is_a_definition_error(codec: PydanticCodec, annotation: Any) -> None:
    with pytest.raises(DefinitionError, match=r"must be a type that pydantic can validate"):
        codec.value(annotation)
