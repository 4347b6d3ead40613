"""Random orchestrator programs: what they are made of, how one is drawn, and how its direct execution ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

from tests.simulation.activities import answer


class Node(NamedTuple):
    """A statement of a program. `n` is unique within the program; `size` counts or is in milliseconds."""

    kind: str
    n: int = 0
    size: int = 0
    plan: str = ""
    parts: tuple[Node, ...] = ()


class RaisedError(Exception):
    """Direct execution ends with an error that `describe` in `interpret` describes in these words."""


def features(node: Node) -> Iterator[str]:
    """The kinds of statements in a program, with repetitions."""
    yield f"{node.kind}:{node.plan}" if node.plan else node.kind
    for part in node.parts:
        yield from features(part)


# --- how a program is drawn -----------------------------------------------------------------------------

ASKED: dict[str, tuple[str, ...]] = {
    "ask": ("on time", "twice", "wrong first", "different", "failing", "forged"),
    "ask_for_ever": ("on time", "twice", "failing", "impatient"),
    "ask_briefly": ("late", "never"),
    "ask_again": ("second", "fail then succeed", "careless"),
    "ask_alive": ("beats", "dies", "by key", "by number", "late by key"),
}
_LEAVES = (
    *("work",) * 6,
    *("work_async", "work_here", "by_name", "flaky", "flaky", "failing", "hopeless", "refusing", "patient"),
    *("once", "once", "unserialisable", "overrun", "hurried", "refused", "missing", "clock", "drawn", "yield"),
    *("sleep", "sleep", "sleep", "ask", "ask", "ask", "ask_for_ever", "ask_briefly", "ask_again", "raise"),
)
PLANS: dict[str, tuple[str, ...]] = {
    **ASKED,
    "receive": ("one by one", "together", "iterated", "impatient", "buffered", "raced", "unreadable"),
    "tell": ("self", "parent", "nobody"),
    "updated": ("at once", "slowly"),
    "beat": ("steady", "fails", "silent", "mute"),
    "beat_once": ("steady", "silent"),
    "learn": ("obedient", "stubborn"),
    "saga": ("kept", "fails", "parallel", "half", "undo fails"),
    "map": ("bounded", "tolerated", "too many", "not one"),
    "child": (
        *("awaited", "awaited", "handle", "patient", "chosen", "taken", "cancelled", "obeys", "hurried", "forgotten"),
        *("left terminate", "left cancel", "left abandon"),
    ),
}
_SOCIABLE_LEAVES = ("receive", "receive", "tell", "updated", "patched", "status")
_BEATING_LEAVES = ("beat", "beat", "beat_once", "learn", "ask_alive")
_RAISING = frozenset({"raise", "failing", "hopeless", "refusing", "unserialisable", "overrun", "refused", "missing"})
_SEQUENTIAL = ("seq", "seq", "helper", "generator", "abandoned", "cleanup", "in_time", "waited", "loop", "attempt")
_CONCURRENT = (
    *("gather", "gather", "exceptions", "group", "group_fails", "timeout", "wait_for", "shield", "outlived"),
    *("cancel", "race", "completed", "wait", "event", "lock", "semaphore", "condition", "queue", "background"),
    *("saga", "saga", "map", "first"),
)


class _Author:
    def __init__(self, rng: Random, statements: int) -> None:
        self.rng = rng
        self.left = statements
        self.n = 0

    def node(self, depth: int, *, safe: bool) -> Node:
        """A statement; one that raises nothing, if `safe`."""
        rng = self.rng
        self.left -= 1
        self.n += 1
        if depth <= 0 or self.left <= 0 or rng.randrange(5) < 2:
            return self.leaf(safe=safe)
        n = self.n
        if rng.randrange(8) == 0:
            return self.child(depth, safe=safe)
        if rng.randrange(5) < 2:
            kind = rng.choice(_SEQUENTIAL)
            count = rng.randrange(1, 4) if kind in {"seq", "generator", "abandoned"} else 1
            kept_safe = safe and kind != "attempt"
            parts = tuple(self.node(depth - 1, safe=kept_safe) for _ in range(count))
            return Node(kind, n, rng.randrange(2, 4), "", parts)
        kind = rng.choice(_CONCURRENT)
        parts = tuple(self.node(depth - 1, safe=True) for _ in range(rng.randrange(1, 4)))
        if kind in PLANS:
            made = Node(kind, n, rng.randrange(1, 4), rng.choice(PLANS[kind]), parts)
        else:
            made = Node(kind, n, rng.randrange(5_000), "", parts)
        raises = kind == "group_fails" or (kind == "saga" and made.plan != "kept")
        return Node("attempt", n, 0, "", (made,)) if safe and raises else made

    def child(self, depth: int, *, safe: bool) -> Node:
        n, plan = self.n, self.rng.choice(PLANS["child"])
        passes_on = plan in {"awaited", "handle", "patient"}
        made = Node("child", n, self.rng.randrange(1, 4), plan, (self.node(depth - 1, safe=safe or not passes_on),))
        return Node("attempt", n, 0, "", (made,)) if safe and plan == "taken" else made

    def leaf(self, *, safe: bool) -> Node:
        rng, n = self.rng, self.n
        kind = rng.choice(_SOCIABLE_LEAVES if rng.randrange(5) == 0 else _LEAVES)
        if rng.randrange(12) == 0:
            kind = rng.choice(_BEATING_LEAVES)
        plan, size = "", rng.randrange(1, 4)
        if kind in PLANS:
            plan = rng.choice(PLANS[kind])
        elif kind == "sleep":
            size = rng.choice((1, 500, 5_000, 90_000))
        made = Node(kind, n, size, plan)
        raises = kind in _RAISING or kind == "ask_briefly" or plan == "failing"
        return Node("attempt", n, 0, "", (made,)) if safe and raises else made


def draw_program(rng: Random, statements: int = 10) -> Node:
    """A program of about so many statements."""
    author = _Author(rng, rng.randrange(1, statements + 1))
    parts = [author.node(3, safe=rng.randrange(4) > 0)]
    while author.left > 0:
        parts.append(author.node(3, safe=rng.randrange(8) > 0))
    if rng.randrange(4) == 0:
        _go_on_anew(author, parts)
    return Node("seq", 0, 0, "", tuple(parts))


def _go_on_anew(author: _Author, parts: list[Node]) -> None:
    """Put the end of a run or two between the outermost statements, and a signal that arrives before one."""
    rng = author.rng
    for _ in range(rng.choice((1, 1, 2))):
        author.n += 1
        n = author.n
        open_ones = tuple(author.node(1, safe=True) for _ in range(rng.randrange(3)))
        place = rng.randrange(len(parts) + 1)
        parts.insert(place, Node("anew", n, rng.randrange(1, 4), "", open_ones))
        if rng.randrange(2):
            author.n += 1
            posted = Node("post", author.n, rng.randrange(1, 4), rng.choice(("buffered", "one by one")))
            parts.insert(rng.randrange(place + 1, len(parts) + 1), posted._replace(kind="fetch"))
            parts.insert(rng.randrange(place + 1), posted)


def signals(node: Node) -> list[int]:
    """What the signals carry that a statement receives, in ascending order."""
    return [answer(node.n + i) for i in range(node.size)]


def child_name(program: str, node: Node) -> str:
    """Name of the program of a child."""
    return f"{program.partition('.')[0]}.{node.n}"


def child_programs(program: str, node: Node) -> Iterator[tuple[str, Node]]:
    """The programs of all children, and of their children, with their names."""
    if node.kind == "child":
        lingers = node.plan in {"forgotten", "hurried", "cancelled", "left terminate", "left cancel"}
        part = {"obeys": Node("obey", node.n), "chosen": Node("report", node.n)}.get(node.plan, node.parts[0])
        if node.plan == "left abandon":
            part = Node("sleep", node.n, 90_000)
        parts = (part, Node("linger", node.n)) if lingers else (part,)
        yield child_name(program, node), Node("seq", 0, 0, "", parts)
    for part in node.parts:
        yield from child_programs(program, part)


# --- how its direct execution ends ------------------------------------------------------------------------


def expected(node: Node) -> Any:
    """What the program returns, as far as it does not depend on who is faster.

    Raises:
        RaisedError: the program raises.
    """
    return _EXPECTED[node.kind](node)


def _value(node: Node) -> Any:
    return answer(node.n)


def _raises(text: str) -> Callable[[Node], Any]:
    def raise_it(node: Node) -> Any:
        raise RaisedError(text.format(n=node.n))

    return raise_it


def _word(node: Node) -> Any:
    return node.kind


def _asked(node: Node) -> Any:
    if node.plan == "failing":
        raise RaisedError(f"{node.kind} 1 Refused")
    return answer(node.n)


def _all(node: Node) -> Any:
    return [expected(part) for part in node.parts]


def _first(node: Node) -> Any:
    return expected(node.parts[0])


def _sorted(node: Node) -> Any:
    return sorted((expected(part) for part in node.parts), key=repr)


def _child(node: Node) -> Any:
    if node.plan == "taken":
        raise RaisedError("child ExecutionExistsError")
    if node.plan not in {"awaited", "handle", "patient"}:
        return node.kind
    try:
        return expected(node.parts[0])
    except RaisedError as error:
        raise RaisedError(f"child {error}") from None


def _saga(node: Node) -> Any:
    value = expected(node.parts[0])
    if node.plan == "kept":
        return value
    if node.plan == "undo fails":
        raise RaisedError("[undo 2 builtins.ValueError]")
    raise RaisedError("failing 2 builtins.ValueError" if node.plan == "half" else f"ProgramError {node.n}")


def _caught(node: Node) -> Any:
    try:
        return expected(node.parts[0])
    except RaisedError as error:
        return f"caught {error}"


def _repeated(node: Node) -> Any:
    return [expected(node.parts[0]) for _ in range(node.size)]


def _with_word(node: Node) -> Any:
    return [*_all(node), node.kind]


_EXPECTED: dict[str, Callable[[Node], Any]] = {
    **dict.fromkeys(
        ("work", "work_async", "work_here", "by_name", "flaky", "patient", "ask_alive", "beat", "beat_once"), _value
    ),
    **dict.fromkeys(("clock", "drawn", "yield", "sleep", "once", "hurried", "ask_again", "learn"), _word),
    **dict.fromkeys(("timeout", "wait_for", "cancel", "race", "background", "map", "first"), _word),
    **dict.fromkeys(("ask", "ask_for_ever"), _asked),
    **dict.fromkeys(("seq", "gather", "exceptions", "group", "wait", "generator"), _all),
    **dict.fromkeys(("event", "lock", "semaphore"), _all),
    **dict.fromkeys(("completed", "queue"), _sorted),
    **dict.fromkeys(("helper", "in_time", "waited", "shield", "outlived", "abandoned"), _first),
    "ask_briefly": _raises("ask_briefly 1 durably.core.errors.ActivityTimeoutError"),
    "failing": _raises("failing 2 builtins.ValueError"),
    "hopeless": _raises("hopeless 1 builtins.KeyError"),
    "refusing": _raises("refusing 1 durably.core.errors.NonRetryableError"),
    "unserialisable": _raises("unserialisable 1 durably.core.errors.PayloadError"),
    "overrun": _raises("overrun 2 durably.core.errors.ActivityTimeoutError"),
    "missing": _raises("nobody 1 durably.core.errors.NonRetryableError"),
    "refused": _raises("PayloadError"),
    "raise": _raises("ProgramError {n}"),
    "group_fails": _raises("[ProgramError {n}]"),
    **dict.fromkeys(("receive", "post", "fetch", "greeted", "tell", "updated", "linger", "anew", "status"), _word),
    **dict.fromkeys(("patched", "obey"), _value),
    "report": lambda node: "child program",
    "child": _child,
    "saga": _saga,
    "attempt": _caught,
    "loop": _repeated,
    "cleanup": _with_word,
    "condition": _with_word,
}

KINDS = frozenset(_EXPECTED)
