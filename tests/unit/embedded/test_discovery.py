"""Finding definitions: names that match the user's own imports, each definition once, errors that name the file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from durably import Registry
from durably.codec.payloads import PydanticCodec
from durably.core.errors import ConfigurationError, DefinitionError
from durably.embedded.discovery import Definitions, ImportFailedError, discover, imported_files, python_files

TASK = "from durably import activity\n@activity\ndef {name}(number: int) -> int:\n    return number\n"


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:
    path, modules, write = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    yield
    sys.path[:], sys.dont_write_bytecode = path, write
    for name in set(sys.modules) - modules:
        module = sys.modules[name]
        if "durably" not in name.split(".")[0] and getattr(module, "__file__", None) is not None:
            del sys.modules[name]


def write(folder: Path, **files: str) -> Path:
    """Files by name, `a__b` being `a/b.py`."""
    for name, text in files.items():
        parts = name.removesuffix("____init__").split("__") + (["__init__"] if name.endswith("____init__") else [])
        file = folder.joinpath(*parts).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text), encoding="utf-8")
    return folder


def names(found: Definitions) -> tuple[list[str], list[str]]:
    return [flow.name for flow in found.orchestrators], [task.name for task in found.activities]


FLOW = """
from durably import Context, orchestrator
from tasks_d.numbers import echo

@orchestrator
async def flow(ctx: Context, number: int) -> int:
    return await echo(number)
"""


@pytest.mark.parametrize("packages", [True, False], ids=["with __init__", "without __init__"])
def test_folders_are_packages_that_import_each_other(tmp_path: Path, packages: bool) -> None:
    write(tmp_path, flows_d__one=FLOW, tasks_d__numbers=TASK.format(name="echo"))
    if packages:
        for folder in ("flows_d", "tasks_d"):
            (tmp_path / folder / "__init__.py").touch()
    found = discover([tmp_path / "flows_d", tmp_path / "tasks_d"])
    assert names(found) == (["flow"], ["echo"])
    assert found.activities[0] is sys.modules["tasks_d.numbers"].echo
    Registry(found.orchestrators, found.activities, codec=PydanticCodec())


def test_definitions_imported_from_elsewhere_are_found_where_they_are_used(tmp_path: Path) -> None:
    write(tmp_path, flows_d__one=FLOW, tasks_d__numbers=TASK.format(name="echo"))
    assert names(discover([tmp_path / "flows_d"])) == (["flow"], ["echo"])


def test_the_folder_of_a_file_is_where_its_imports_are_looked_for(tmp_path: Path) -> None:
    write(tmp_path, flows=FLOW.replace("tasks_d.numbers", "numbers_d"), numbers_d=TASK.format(name="echo"))
    assert names(discover([tmp_path / "flows.py"])) == (["flow"], ["echo"])


def test_a_path_given_twice_and_a_definition_with_options_count_once(tmp_path: Path) -> None:
    write(tmp_path, tasks_d__numbers=TASK.format(name="echo") + "quick = echo.options(at_most_once=True)\n")
    found = discover([tmp_path / "tasks_d", tmp_path / "tasks_d" / "numbers.py"])
    assert names(found) == ([], ["echo"])


@pytest.mark.parametrize("inside", [True, False], ids=["from inside", "from outside"])
def test_a_project_or_its_src_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    write(tmp_path, src__shop_d__flows__one=FLOW.replace("tasks_d", "shop_d.tasks"))
    write(tmp_path, src__shop_d__tasks__numbers=TASK.format(name="echo"), src__shop_d____init__="")
    write(tmp_path, src__shop_d__flows____init__="", src__shop_d__tasks____init__="")
    if inside:
        monkeypatch.chdir(tmp_path / "src")
        assert names(discover(["."])) == (["flow"], ["echo"])
    else:
        assert names(discover([tmp_path / "src"])) == (["flow"], ["echo"])
    assert "shop_d.flows.one" in sys.modules


def test_a_folder_deep_in_a_package_keeps_its_full_name(tmp_path: Path) -> None:
    write(tmp_path, shop_d____init__="", shop_d__tasks____init__="", shop_d__tasks__numbers=TASK.format(name="echo"))
    discover([tmp_path / "shop_d" / "tasks"])
    assert "shop_d.tasks.numbers" in sys.modules


@pytest.mark.parametrize("packages", [True, False], ids=["with __init__", "without __init__"])
def test_modules_of_the_same_name_in_different_folders_are_different_modules(tmp_path: Path, packages: bool) -> None:
    write(tmp_path, one_d__tasks_d__numbers=TASK.format(name="first"))
    write(tmp_path, two_d__tasks_d__numbers=TASK.format(name="second"))
    if packages:
        write(tmp_path, one_d__tasks_d____init__="", two_d__tasks_d____init__="")
    found = discover([tmp_path / "one_d" / "tasks_d", tmp_path / "two_d" / "tasks_d"])
    assert names(found) == ([], ["first", "second"])


def test_a_module_named_as_one_of_pythons_own_hides_nothing(tmp_path: Path) -> None:
    import queue

    write(tmp_path, things_d__queue=TASK.format(name="enqueue"))
    assert names(discover([tmp_path / "things_d" / "queue.py"])) == ([], ["enqueue"])
    assert sys.modules["queue"] is queue


def test_two_functions_of_one_name_are_refused_by_the_registry(tmp_path: Path) -> None:
    write(tmp_path, tasks_d__one=TASK.format(name="echo"), tasks_d__two=TASK.format(name="echo"))
    found = discover([tmp_path / "tasks_d"])
    with pytest.raises(DefinitionError, match=r"tasks_d\.two\.echo and tasks_d\.one\.echo share .* 'echo'"):
        Registry(found.orchestrators, found.activities, codec=PydanticCodec())


def test_an_implementation_is_found_with_its_contract(tmp_path: Path) -> None:
    write(
        tmp_path,
        contracts_d=TASK.format(name="resize"),
        implementation_d="from contracts_d import resize\n@resize.implement\ndef really(number: int) -> int: ...\n",
    )
    found = discover([tmp_path / "contracts_d.py", tmp_path / "implementation_d.py"])
    assert [task.implementation.__name__ for task in found.activities] == ["really"]


def test_tests_scripts_and_hidden_folders_are_not_imported(tmp_path: Path) -> None:
    write(tmp_path, tasks_d__numbers=TASK.format(name="echo"))
    for aside in (
        "test_numbers",
        "numbers_test",
        "conftest",
        "__main__",
        ".hidden",
        "venv/lib",
        "tests/help",
        ".git/hook",
    ):
        file = tmp_path / "tasks_d" / f"{aside}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise AssertionError('imported')")
    assert names(discover([tmp_path / "tasks_d"])) == ([], ["echo"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def (\n", r"one\.py cannot be imported: SyntaxError: invalid syntax \(.*one\.py:1\)"),
        ("\nimport nowhere_d\n", r"ModuleNotFoundError: No module named 'nowhere_d' \(.*one\.py:2\)"),
        ("1 / 0\n", r"ZeroDivisionError: division by zero \(.*one\.py:1\)"),
        ("import sys\nsys.exit('bye')\n", r"SystemExit: bye \(.*one\.py:2\)"),
        (
            "from durably import activity\nclass A:\n    @activity\n    def b(self): ...\n",
            r"DefinitionError: .* a method",
        ),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_its_error(tmp_path: Path, text: str, says: str) -> None:
    write(tmp_path, flows_d__one=text)
    with pytest.raises(ImportFailedError, match=says) as caught:
        discover([tmp_path / "flows_d"])
    assert caught.value.file == tmp_path / "flows_d" / "one.py"


def test_the_line_named_is_in_the_file_that_is_wrong(tmp_path: Path) -> None:
    write(tmp_path, flows_d__one=FLOW, tasks_d__numbers="\n\n1 / 0\n")
    with pytest.raises(ImportFailedError, match=r"one\.py cannot be imported: .*numbers\.py:3\)"):
        discover([tmp_path / "flows_d"])


def test_a_package_that_cannot_be_imported_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    write(tmp_path, flows_d____init__="import nowhere_d", flows_d__A=TASK.format(name="echo"))
    with pytest.raises(ImportFailedError, match="No module named 'nowhere_d'"):
        discover([tmp_path / "flows_d" / "A.py"])


@pytest.mark.parametrize(("name", "says"), [("nowhere", "does not exist"), ("notes.txt", "neither a folder nor")])
def test_a_path_that_holds_no_code_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigurationError, match=says):
        python_files(tmp_path / name)


def test_what_was_imported_from_elsewhere_is_known_and_what_was_installed_is_not(tmp_path: Path) -> None:
    write(tmp_path, flows_d__one=FLOW, tasks_d__numbers=TASK.format(name="echo"))
    discover([tmp_path / "flows_d"])
    files = imported_files()
    assert tmp_path / "tasks_d" / "numbers.py" in files
    assert not [file for file in files if file.name in ("argparse.py", "registry.py") or "pydantic" in file.parts]


def test_a_definition_that_is_shadowed_by_a_plain_value_is_no_definition(tmp_path: Path) -> None:
    write(tmp_path, tasks_d__numbers="from durably import activity, Context\nechoes: list[object] = [activity]\n")
    found: Any = discover([tmp_path / "tasks_d"])
    assert names(found) == ([], [])
