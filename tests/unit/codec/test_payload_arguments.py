"""Arguments travel by parameter name; binding fails in Python's own words."""

from __future__ import annotations

import functools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from durably.codec.payloads import PydanticCodec
from durably.core.errors import DefinitionError, PayloadError
from tests.unit.codec.samples import Line, Order

if TYPE_CHECKING:
    from decimal import Decimal


def get_route(failed: list[str], limit: int = 3, *, region: str = "eu") -> str: ...  # type: ignore[empty-body]
def place(order: Order, /, note: str = "", *, urgent: bool) -> None: ...
def leading(a: int, b: int = 2, /, c: int = 3) -> None: ...
def nothing() -> None: ...
def untyped(a, b=None): ...  # type: ignore[no-untyped-def]
def star(*names: str) -> None: ...
def stars(**options: int) -> None: ...
def hidden_type(price: Decimal) -> Decimal: ...  # type: ignore[empty-body]
async def fetch(a: int) -> Line: ...  # type: ignore[empty-body]
def fetch_later(a: int) -> Coroutine[Any, Any, Line]: ...  # type: ignore[empty-body]
def never() -> NoReturn: ...  # type: ignore[empty-body]


class Service:
    def method(self, a: int) -> str: ...  # type: ignore[empty-body]

    def __call__(self, a: int) -> str: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "text"),
    [
        (get_route, (["a"],), {}, '{"failed":["a"]}'),
        (get_route, (["a"], 4), {"region": "us"}, '{"failed":["a"],"limit":4,"region":"us"}'),
        (get_route, (), {"region": "us", "failed": []}, '{"failed":[],"region":"us"}'),
        (nothing, (), {}, "{}"),
        (untyped, ([1],), {}, '{"a":[1]}'),
        (Service().method, (1,), {}, '{"a":1}'),
        (Service(), (1,), {}, '{"a":1}'),
        (functools.partial(get_route, limit=5), (["a"],), {}, '{"failed":["a"]}'),
        (functools.partial(get_route, ["a"]), (5,), {}, '{"limit":5}'),
        (leading, (1, 5), {}, '{"a":1,"b":5}'),
    ],
)
def test_arguments_are_an_object_by_parameter_name_without_what_was_omitted(
    codec: PydanticCodec, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    assert codec.arguments(fn).encode(args, kwargs) == text


def test_the_first_parameters_can_be_skipped(codec: PydanticCodec) -> None:
    shape = codec.arguments(get_route, skip=1)
    assert shape.encode((4,), {}) == '{"limit":4}'
    with pytest.raises(DefinitionError, match="its signature has too few"):
        codec.arguments(nothing, skip=1)


def test_decoded_arguments_call_the_function(codec: PydanticCodec) -> None:
    def call(fn: Any, text: str) -> Any:
        args, kwargs = codec.arguments(fn).decode(text)
        return args, kwargs

    assert call(get_route, '{"failed":["a"],"region":"us"}') == ((), {"failed": ["a"], "region": "us"})
    assert call(place, '{"order":{},"urgent":true}') == ((Order(),), {"urgent": True})
    assert call(leading, '{"a":1,"c":4}') == ((1,), {"c": 4})
    assert call(leading, '{"a":1,"b":4}') == ((1, 4), {})
    assert call(nothing, "{}") == ((), {})


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (get_route, (), {}),
        (place, (Order(),), {}),
        (get_route, (["a"], 1, 2), {}),
        (nothing, (1,), {}),
        (get_route, (["a"],), {"failed": []}),
        (get_route, (["a"],), {"nope": 1}),
        (leading, (), {"a": 1}),
        (leading, (), {}),
        (place, (), {}),
    ],
)
def test_what_does_not_bind_fails_in_pythons_own_words(
    codec: PydanticCodec, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError) as ours:
        codec.arguments(fn).encode(args, kwargs)
    with pytest.raises(TypeError) as pythons:
        fn(*args, **kwargs)
    assert str(ours.value) == str(pythons.value)


@pytest.mark.parametrize(
    ("fn", "args", "kwargs", "path"),
    [
        (get_route, ("a",), {}, "failed"),
        (get_route, (["a", 3],), {}, "failed[1]"),
        (get_route, (["a"], "3"), {}, "limit"),
        (place, (Order(lines=[Line(), Line(price=float("nan"))]),), {"urgent": True}, "order.lines[1].price"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused_with_its_path(
    codec: PydanticCodec, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: str
) -> None:
    for _ in range(2):
        with pytest.raises(PayloadError, match=f"arguments of {fn.__name__}") as caught:
            codec.arguments(fn).encode(args, kwargs)
        assert caught.value.path == path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"failed":[],"nope":1}', "nope"),
        ("{}", "failed"),
        ("[]", ""),
        ("{", ""),
        ('{"failed":[1]}', "failed[0]"),
    ],
)
def test_a_text_that_does_not_fit_the_signature_is_refused(codec: PydanticCodec, text: str, path: str) -> None:
    with pytest.raises(PayloadError) as caught:
        codec.arguments(get_route).decode(text)
    assert caught.value.path == path


def test_a_misspelt_name_is_told_beside_the_one_that_is_missing(codec: PydanticCodec) -> None:
    def ship(order: str, express: bool = False) -> None: ...

    with pytest.raises(
        PayloadError, match=r"at order: expected a value, .* got nothing, but 'odrer', which is no name here"
    ):
        codec.arguments(ship).decode('{"odrer": "a"}')


@pytest.mark.parametrize(
    ("recorded", "same"),
    [
        ('{"failed":["a"]}', True),
        ('{"failed":["a"],"limit":3}', True),
        ('{"region":"eu","failed":["a"]}', True),
        ('{"failed":["a"],"limit":4}', False),
        ('{"failed":["b"]}', False),
        ('{"failed":["a"],"removed":1}', False),
        ("{}", False),
    ],
)
def test_arguments_are_the_same_when_today_they_mean_the_same(codec: PydanticCodec, recorded: str, same: bool) -> None:
    assert codec.arguments(get_route).same(recorded, '{"failed":["a"]}') is same


@pytest.mark.parametrize(("fn", "remedy"), [(star, r"`names: list\["), (stars, r"`options: dict\[str, ")])
def test_star_parameters_are_refused_at_definition(codec: PydanticCodec, fn: Any, remedy: str) -> None:
    with pytest.raises(DefinitionError, match=rf"{fn.__name__}\(\) must name its parameters.*{remedy}"):
        codec.arguments(fn)


def test_an_annotation_that_does_not_exist_at_run_time_is_refused_at_definition(codec: PydanticCodec) -> None:
    with pytest.raises(DefinitionError, match=r"parameter 'price' of hidden_type\(\).*TYPE_CHECKING"):
        codec.arguments(hidden_type)
    with pytest.raises(DefinitionError, match=r"return value of hidden_type\(\).*TYPE_CHECKING"):
        codec.result(hidden_type)
    assert codec.arguments(hidden_type, skip=1).encode((), {}) == "{}"


def test_a_type_that_pydantic_cannot_handle_names_function_and_parameter(codec: PydanticCodec) -> None:
    with pytest.raises(DefinitionError, match=r"parameter 'service' of uses_service\(\)"):
        codec.arguments(uses_service)


def uses_service(a: int, service: Service) -> None: ...


@pytest.mark.parametrize("fn", [fetch, fetch_later])
def test_the_result_of_a_coroutine_function_is_what_its_coroutine_returns(codec: PydanticCodec, fn: Any) -> None:
    assert codec.result(fn).decode("{}") == Line()


def test_a_result_that_does_not_fit_names_the_function(codec: PydanticCodec) -> None:
    assert codec.result(nothing).encode(None) == "null"
    assert codec.result(never).encode(None) == "null"
    assert codec.result(untyped).encode([1]) == "[1]"
    with pytest.raises(PayloadError, match=r"result of get_route\(\): expected a valid string, got 3 \(int\)"):
        codec.result(get_route).encode(3)
