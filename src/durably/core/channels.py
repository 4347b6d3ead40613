"""`Signal`, `Query` and `Update`: typed names that an orchestrator and those who talk to it share."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

from durably.core.errors import DefinitionError
from durably.core.keys import PERSISTED_NAME

T = TypeVar("T")
A = TypeVar("A")
R = TypeVar("R")


class _Channel:
    """A persisted name; its types are the subscript that it was made with."""

    parameters = "Type"

    def __init__(self, name: str) -> None:
        if not PERSISTED_NAME.fullmatch(name):
            raise DefinitionError(
                f"{name!r} cannot name a {type(self).__name__.lower()}: 1 to 128 letters, digits, '_', '.' and '-', "
                "not starting with a digit."
            )
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"

    def _types(self) -> tuple[Any, ...]:
        subscripted = getattr(self, "__orig_class__", None)
        if subscripted is None:
            kind = type(self).__name__
            raise DefinitionError(
                f'The {kind.lower()} {self.name!r} has no type. Declare it as {kind}[{self.parameters}]("{self.name}").'
            )
        return get_args(subscripted)


def check_channel(kind: type[_Channel], given: object) -> None:
    """Refuse what is no signal, query or update, such as its bare name.

    Raises:
        TypeError: `given` is no `kind`.
    """
    if not isinstance(given, kind):
        constant = f'{kind.__name__}[{kind.parameters}]("{given if isinstance(given, str) else "name"}")'
        raise TypeError(f"expected a {kind.__name__.lower()}, got {given!r}. Declare it, {constant}, and pass that.")


class Signal(_Channel, Generic[T]):
    """A message into an execution: `APPROVED = Signal[Approval]("approved")`. Nobody waits for an answer."""

    @property
    def payload_type(self) -> Any:
        """Annotation of what it carries."""
        return self._types()[0]


class Query(_Channel, Generic[R]):
    """A question to an execution that changes nothing: `PROGRESS = Query[Progress]("progress")`."""

    @property
    def result_type(self) -> Any:
        """Annotation of the answer."""
        return self._types()[0]


class Update(_Channel, Generic[A, R]):
    """A request that an execution may refuse and answers: `ADD = Update[Item, Cart]("add")`."""

    parameters = "Argument, Result"

    @property
    def payload_type(self) -> Any:
        """Annotation of what it carries."""
        return self._types()[0]

    @property
    def result_type(self) -> Any:
        """Annotation of the answer."""
        return self._types()[1]
