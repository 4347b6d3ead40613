"""Which functions are looked at, across the files of a project, and what names in them mean."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import durably.lint
from durably.lint import lint
from tests.unit.lint.programs import codes, findings

FLOW = """
    from durably import Context, orchestrator
    {imports}

    @orchestrator
    async def flow(ctx: Context) -> None:
        {body}
"""


def flow(imports: str, body: str) -> str:
    return FLOW.format(imports=imports.replace("\n", "\n    "), body=body)


def test_helpers_in_other_files_are_followed_and_the_orchestrator_is_named(tmp_path: Path) -> None:
    found = findings(
        tmp_path,
        "orchestrators/flows",
        **{
            "orchestrators/flows": flow("from shop.prices import price", "price()"),
            "shop/__init__": "",
            "shop/prices": "from shop.deep import now\ndef price(): return now()\n",
            "shop/deep": "import time\ndef now(): return time.time()\ndef never(): return time.time()\n",
        },
    )
    assert [(each.file.name, each.line, each.code) for each in found] == [("deep.py", 2, "DUR001")]
    assert "(flow calls it)" in found[0].message


def test_a_helper_of_two_orchestrators_is_reported_once(tmp_path: Path) -> None:
    text = """
        import time
        from durably import Context, orchestrator
        def helper(): return time.time()
        @orchestrator
        async def one(ctx: Context) -> None: helper()
        @orchestrator(name="other")
        async def two(ctx: Context) -> None: helper()
    """
    assert len(findings(tmp_path, flows=text)) == 1


def test_modules_are_found_however_they_are_imported(tmp_path: Path) -> None:
    clock = "import time\ndef now(): return time.time()\n"
    ways = {
        "from app.clock import now": "now()",
        "from app import clock": "clock.now()",
        "import app.clock": "app.clock.now()",
        "import app.clock as c": "c.now()",
        "from .clock import now as later": "later()",
        "from . import clock as c": "c.now()",
        "from app.clock import *": "now()",
        "from app import now": "now()",
        "import app": "app.now()",
    }
    for number, (imports, body) in enumerate(ways.items()):
        files = {
            "app/__init__": "from app.clock import now\n",
            "app/clock": clock,
            "app/flows": flow(imports, body),
        }
        found = findings(tmp_path / str(number), "app/flows", **files)
        assert [(each.file.name, each.code) for each in found] == [("clock.py", "DUR001")], imports


def test_an_orchestrator_that_is_only_imported_is_left_to_its_own_file(tmp_path: Path) -> None:
    files = {
        "one": flow("import time", "time.time()"),
        "two": flow("from one import flow as child", "await child()"),
    }
    assert findings(tmp_path, "two", **files) == []


def test_decorators_are_known_under_any_name(tmp_path: Path) -> None:
    text = """
        import time
        import durably as d
        from durably import orchestrator as durable
        flows = durable
        @d.orchestrator(aliases=["x"])
        async def one(ctx: d.Context) -> None: time.time()
        @flows
        async def two(ctx: d.Context) -> None: time.time()
        async def plain(ctx: d.Context) -> None: time.time()
        three = d.orchestrator(name="three")(plain)
        async def four(ctx: d.Context) -> None: time.time()
        called = d.orchestrator(four)
        def make():
            @durable
            async def five(ctx: d.Context) -> None: time.time()
        async def nothing(ctx: d.Context) -> None: time.time()
    """
    assert [each.line for each in findings(tmp_path, flows=text)] == [7, 9, 10, 12, 16]
    assert lint([tmp_path / "flows.py"]).orchestrators == 5


def test_methods_and_constructors_are_followed(tmp_path: Path) -> None:
    before = """
        import time, uuid
        from dataclasses import dataclass, field
        class Base:
            def inherited(self): return time.time()
        class Clock(Base):
            def __init__(self): self.made = time.time()
            def now(self): return self.deeper()
            def deeper(self): return time.time()
            @property
            def today(self): return time.time()
            @staticmethod
            def tick(): return time.time()
            def never(self): return time.time()
        @dataclass
        class Order:
            id: uuid.UUID = field(default_factory=uuid.uuid4)
            at: float = field(default_factory=lambda: time.time())
    """
    assert codes(tmp_path, "Clock()", before) == ["DUR001"]
    assert codes(tmp_path, "def f(clock: Clock): return clock.now()", before) == ["DUR001"]
    assert codes(tmp_path, "def f(clock: 'Clock | None'): return clock.today", before) == ["DUR001"]
    assert codes(tmp_path, "Clock.tick()", before) == ["DUR001"]
    assert codes(tmp_path, "clock = Clock()\nclock.inherited()", before) == ["DUR001", "DUR001"]
    assert codes(tmp_path, "Order()", before) == ["DUR002", "DUR001"]
    assert codes(tmp_path, "def f(clock: Clock, order: Order): ...", before) == []


def test_what_is_passed_on_counts_as_called(tmp_path: Path) -> None:
    before = "import time\ndef stamp(x): return time.time()"
    assert codes(tmp_path, "list(map(stamp, [1]))", before) == ["DUR001"]
    assert codes(tmp_path, "f = lambda: stamp(1)\nf()", before) == ["DUR001"]


def test_names_that_depend_on_each_other_end(tmp_path: Path) -> None:
    assert codes(tmp_path, "a = b\nb = a\na.x()") == []
    assert codes(tmp_path, "one()", "def one(): return two()\ndef two(): return one()") == []
    assert codes(tmp_path, "def f(x: A): return x.y", "class A(B): ...\nclass B(A): ...") == []
    files = {"one": "from two import x\n", "two": "from one import x\n", "flows": flow("from one import x", "x()")}
    assert findings(tmp_path / "circle", "flows", **files) == []


def test_state_of_other_modules_is_state_too(tmp_path: Path) -> None:
    state = "SEEN = {}\nLIMIT = 1\n"
    ways = {
        "from state import SEEN": "SEEN['x'] = 1",
        "import state": "state.LIMIT = 2",
        "import state as s": "s.SEEN.clear()",
    }
    for number, (imports, body) in enumerate(ways.items()):
        found = findings(tmp_path / str(number), "flows", state=state, flows=flow(imports, body))
        assert [each.code for each in found] == ["DUR012"], imports


def test_a_file_that_is_no_python_is_a_finding_where_it_is_checked_and_none_where_it_is_imported(
    tmp_path: Path,
) -> None:
    files = {"broken": "def (\n", "flows": flow("from broken import x", "x()")}
    assert findings(tmp_path, "flows", **files) == []
    (found,) = findings(tmp_path, "broken", **files)
    assert (found.code, found.line) == ("DUR000", 1)
    for name, content in {"null.py": b"x = '\0'\n", "latin.py": b"x = '\xff'\n"}.items():
        (tmp_path / name).write_bytes(content)
        assert [each.code for each in lint([tmp_path / name]).findings] == ["DUR000"]
    assert [each.code for each in lint([tmp_path / "missing.py"]).findings] == ["DUR000"]


def test_a_file_nested_too_deep_to_be_checked_is_a_finding(tmp_path: Path) -> None:
    text = flow("", "await ctx.call('x', returns=int, y=" + " + ".join(["1"] * 900) + ")")
    assert [each.code for each in findings(tmp_path, flows=text)] == ["DUR000"]


def test_nothing_is_imported_or_run(tmp_path: Path) -> None:
    text = flow("raise SystemExit('imported')\nimport helper_of_nobody", "helper_of_nobody.x()")
    assert findings(tmp_path, flows=text, helper_of_nobody="raise SystemExit('imported')\n") == []
    assert "helper_of_nobody" not in sys.modules


def test_the_linter_needs_the_standard_library_only() -> None:
    for file in Path(durably.lint.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                named = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                ours = all(name.startswith("durably.lint") for name in named)
                assert ours or all(name.partition(".")[0] in sys.stdlib_module_names for name in named), file.name
