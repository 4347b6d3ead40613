"""Values: what is supported comes back equal, whatever else happens; texts are the same in every process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from durably.codec.payloads import PydanticCodec
from durably.core.errors import PayloadError
from tests.unit.codec.samples import (
    Aliased,
    Box,
    Cat,
    Color,
    Dog,
    Hidden,
    Level,
    Line,
    Movie,
    Order,
    Packet,
    Parcel,
    Point,
    Tree,
)

_UUID = UUID(int=2**100)

SUPPORTED: list[tuple[Any, Any, str]] = [
    (None, None, "null"),
    (bool, True, "true"),
    (int, 10**30, "1" + "0" * 30),
    (float, 1.5, "1.5"),
    (float, 3, "3.0"),
    (str, 'é"\n', '"é\\"\\n"'),
    (bytes, b"\xff\xfe", '"__4="'),
    (Decimal, Decimal("1.10"), '"1.10"'),
    (UUID, _UUID, f'"{_UUID}"'),
    (Path, Path("/tmp/a"), '"/tmp/a"'),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), '"2026-01-02T03:04:05.000006Z"'),
    (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))), '"2026-01-02T00:00:00+02:00"'),
    (date, date(2026, 1, 2), '"2026-01-02"'),
    (time, time(3, 4, 5), '"03:04:05"'),
    (timedelta, timedelta(days=-1, microseconds=1), '"-PT23H59M59.999999S"'),
    (Color, Color.RED, '"red"'),
    (Level, Level.HIGH, "2"),
    (Literal["a", 1], 1, "1"),
    (list[int], [1, 2], "[1,2]"),
    (Sequence[int], [1, 2], "[1,2]"),
    (tuple[int, ...], (1, 2), "[1,2]"),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (tuple[()], (), "[]"),
    (set[str], {"b", "a", "c"}, '["a","b","c"]'),
    (frozenset[tuple[int, str]], frozenset({(2, "a"), (1, "b")}), '[[1,"b"],[2,"a"]]'),
    (set[int | str], {2, "a", 1}, '["a",1,2]'),
    (dict[str, int], {"b": 1, "a": 2}, '{"b":1,"a":2}'),
    (dict[int, str], {1: "a"}, '{"1":"a"}'),
    (dict[date, int], {date(2026, 1, 2): 1}, '{"2026-01-02":1}'),
    (dict[Color, int], {Color.RED: 1}, '{"red":1}'),
    (Mapping[str, int], {"a": 1}, '{"a":1}'),
    (int | None, None, "null"),
    (int | str, "1", '"1"'),
    (Line | None, Line(price=1.5), '{"sku":"a","price":1.5}'),
    (Annotated[Cat | Dog, Field(discriminator="kind")], Dog(), '{"kind":"dog","name":"Rex"}'),
    (Cat | Dog, Dog(), '{"kind":"dog","name":"Rex"}'),
    (Aliased, Aliased(orderId="x"), '{"orderId":"x"}'),
    (Hidden, Hidden(visible=1), '{"visible":1}'),
    (Tree, Tree(children=[Tree()]), '{"children":[{"children":[]}]}'),
    (Box[list[int]], Box[list[int]](content=[1]), '{"content":[1]}'),
    (Point, Point(1, 2.0), "[1,2.0]"),
    (Movie, {"title": "a"}, '{"title":"a"}'),
    (Parcel, Parcel(1, b"\xff", {3, 1}), '{"weight":1,"contents":"_w==","stops":[1,3]}'),
    (Packet, Packet("a", (Point(1, 0.5),)), '{"id":"a","route":[[1,0.5]]}'),
    (Any, {"a": [1, 2.5, None, True, "x"]}, '{"a":[1,2.5,null,true,"x"]}'),
    (
        dict[str, list[Order]],
        {"k": [Order(tags={"b", "a"}, contents=b"\xff", total=Decimal("1.0"))]},  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        '{"k":[{"lines":[],"placed_at":null,"total":"1.0","tags":["a","b"],"contents":"_w=="}]}',
    ),
]


@pytest.mark.parametrize("verify", ["first", "always"])
@pytest.mark.parametrize(("annotation", "value", "text"), SUPPORTED, ids=lambda part: str(part)[:40])
def test_a_supported_value_is_written_so_and_comes_back_equal_each_time(
    annotation: Any, value: Any, text: str, verify: Any
) -> None:
    shape = PydanticCodec(verify).value(annotation)
    for _ in range(2):
        assert shape.encode(value) == text
        back = shape.decode(text)
        assert back == value
        assert type(back) is type(value) or (type(value), annotation) == (int, float)


_scalars = {
    int: st.integers(),
    str: st.text(),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bytes: st.binary(),
    date: st.dates(),
    datetime: st.datetimes(),
    time: st.times(),
    timedelta: st.timedeltas(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    UUID: st.uuids(),
    Color: st.sampled_from(Color),
    Level: st.sampled_from(Level),
    Literal["a", "b"]: st.sampled_from(["a", "b"]),
}
_typed = st.sampled_from(list(_scalars.items()))


def _nest(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return inner.flatmap(lambda typed: st.sampled_from(_around(*typed)))


def _around(kind: Any, values: st.SearchStrategy[Any]) -> list[tuple[Any, st.SearchStrategy[Any]]]:
    many = st.lists(values, max_size=4)
    return [
        (list[kind], many),
        (tuple[kind, ...], many.map(tuple)),
        (tuple[kind, int], st.tuples(values, st.integers())),
        (dict[str, kind], st.dictionaries(st.text(), values, max_size=4)),
        (dict[int, kind], st.dictionaries(st.integers(), values, max_size=4)),
        (kind | None, st.none() | values),
        (Box[kind], values.map(lambda value: Box[kind](content=value))),
    ]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_nested_generics_come_back_equal(data: st.DataObject) -> None:
    annotation, values = data.draw(st.recursive(_typed, _nest, max_leaves=3))
    shape = PydanticCodec().value(annotation)
    for value in (data.draw(values), data.draw(values)):
        back = shape.decode(shape.encode(value))
        assert back == value
        assert shape.encode(back) == shape.encode(value)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text() | st.integers()), st.sets(st.binary()))
def test_sets_come_back_equal(mixed: set[str | int], raw: set[bytes]) -> None:
    shape = PydanticCodec().value(tuple[set[str | int], frozenset[bytes]])
    assert shape.decode(shape.encode((mixed, frozenset(raw)))) == (mixed, raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=100, deadline=None)
@given(_JSON)
def test_plain_json_comes_back_equal_without_an_annotation(value: Any) -> None:
    shape = PydanticCodec().value(Any)
    assert shape.decode(shape.encode(value)) == value


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(), max_size=5))
def test_text_comes_back_equal_or_is_refused_even_after_the_first_use(text: str) -> None:
    codec = PydanticCodec()
    for annotation, wrap in ((str, text), (dict[str, int], {text: 1}), (list[str], [text])):
        shape = codec.value(annotation)
        try:
            encoded = shape.encode(wrap)
        except PayloadError:
            assert re.search("[\ud800-\udfff]", text)
        else:
            assert shape.decode(encoded) == wrap


def test_sets_are_written_alike_under_every_hash_seed() -> None:
    program = (
        "from durably.codec.payloads import PydanticCodec\n"
        "from tests.unit.codec.samples import Order\n"
        "codec = PydanticCodec()\n"
        "words = {f'word{n}' for n in range(50)}\n"
        "print(codec.value(set[str]).encode(words), codec.value(Order).encode(Order(tags=words)),\n"
        "      codec.value(dict[str, list[frozenset[str]]]).encode({'a': [frozenset(words)]}))\n"
    )
    folder = str(Path(__file__).parents[3])
    texts = set()
    for seed in ("1", "2", "3"):
        path = os.pathsep.join([folder, *sys.path])
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        run = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
        texts.add(run.stdout)
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("annotation", "recorded", "current", "same"),
    [
        (int, "1", "1", True),
        (int, "1", "2", False),
        (Line, '{"sku":"a"}', '{"sku":"a","price":null}', True),
        (Line, '{"price":null,"sku":"a"}', '{"sku":"a","price":null}', True),
        (Line, '{"sku":"b"}', '{"sku":"a","price":null}', False),
        (Line, '{"sku":[]}', '{"sku":"a","price":null}', False),
        (Line, "not json", '{"sku":"a","price":null}', False),
        (dict[str, int], '{"a":1,"b":2}', '{"b":2,"a":1}', True),
        (set[int], "[2,1]", "[1,2]", True),
        (list[int], "[2,1]", "[1,2]", False),
        (float, "1", "1.0", True),
    ],
)
def test_texts_are_the_same_when_today_they_mean_the_same(
    codec: PydanticCodec, annotation: Any, recorded: str, current: str, same: bool
) -> None:
    assert codec.value(annotation).same(recorded, current) is same


def test_a_shape_is_made_once(codec: PydanticCodec) -> None:
    assert codec.value(list[int]) is codec.value(list[int])
    assert codec.value(int | str) is not codec.value(str | int)
