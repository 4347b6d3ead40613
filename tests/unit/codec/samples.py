"""Types as users write them, for the payload tests."""

from __future__ import annotations

import dataclasses
import enum
from datetime import datetime
from decimal import Decimal
from typing import Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from typing_extensions import TypedDict

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Line(BaseModel):
    sku: str = "a"
    price: float | None = None


class Order(BaseModel):
    lines: list[Line] = []
    placed_at: datetime | None = None
    total: Decimal = Decimal(0)
    tags: frozenset[str] = frozenset()
    contents: bytes = b""


class GiftLine(Line):
    greeting: str = "hello"


class Hidden(BaseModel):
    visible: int = 0
    hidden: int = Field(default=0, exclude=True)


class Required(BaseModel):
    hidden: int = Field(exclude=True)


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    order_id: str = Field(alias="orderId")


class Private(BaseModel):
    _state: int = PrivateAttr(default=0)


class Login(BaseModel):
    password: SecretStr


class Tree(BaseModel):
    children: list[Tree] = []


class Box(BaseModel, Generic[T]):
    content: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str = "Rex"


class Point(NamedTuple):
    x: int
    y: float


class Movie(TypedDict, total=False):
    title: str
    year: int


@dataclasses.dataclass
class Parcel:
    weight: int
    contents: bytes = b""
    stops: set[int] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class InsuredParcel(Parcel):
    value: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Packet:
    id: str
    route: tuple[Point, ...] = ()
