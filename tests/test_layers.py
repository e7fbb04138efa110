"""The order of the modules, read from their imports, the limits on their size, and where the paper's equations are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path for package in ("lawm_data", "lawm_train") for path in (ROOT / package).rglob("*.py"))

# a module imports from layers above its own only; those of one line stand side by side
LAYERS = """
errors figures progress checkout
episode files parsing draw parallel table4 arrow hdf5 nets
config envs runs summary
rollout
windows manifest
store
dreamer slicing labels shards transport cache
plan2explore card curves
learner
importers statistics collect splitting hub
publish bench
topup show
cli
"""
WITH_TORCH = {"nets", "windows", "runs", "dreamer", "plan2explore", "learner", "topup"}  # of lawm_data
TRAIN_LAYERS = """
stream evaluate paper paired record
data inferred cells evidence
pool lawm plots tables results
clap td3bc bc idm
methods rungs
ladders
acting pretrained job
policy bench
diagnostics train scoring alike
report
grid share
cli
"""


def ranks(layers: str) -> dict[str, int]:
    return {module: rank for rank, line in enumerate(layers.split("\n")) for module in line.split()}


def module_of(path: Path) -> str:
    """`lawm_data/importers/aime.py` -> `lawm_data.importers.aime`"""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, also inside functions."""
    modules = {module_of(source) for source in SOURCES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else str(node.module) for name in inner)


def may_import(module: str, other: str) -> bool:
    """Whether the order lets one module of the project import the other."""
    (package, inside, *_), (other_package, *there) = module.split("."), other.split(".")
    if package != other_package:
        return package == "lawm_train"
    if not there or there[0] == inside:
        return True
    order = ranks(LAYERS if package == "lawm_data" else TRAIN_LAYERS)
    return order[there[0]] < order[inside]


def test_every_module_has_its_layer() -> None:
    placed = {f"lawm_data.{name}" for name in ranks(LAYERS)} | {f"lawm_train.{name}" for name in ranks(TRAIN_LAYERS)}
    modules = {".".join(module_of(path).split(".")[:2]) for path in SOURCES} - {"lawm_data", "lawm_train"}
    assert modules <= placed, f"give {modules - placed} a place in the layers of this test"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_go_one_way(path: Path) -> None:
    module = module_of(path)
    ours = [name for name in imports_of(path) if name.split(".")[0] in ("lawm_data", "lawm_train")]
    if "." not in module:
        assert not ours, f"{path} is imported before everything else"
        return
    wrong = [name for name in ours if not may_import(module, name)]
    assert not wrong, f"{path} may not import {wrong}"


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_torch_stays_where_networks_are(path: Path) -> None:
    package, *inside = module_of(path).split(".")
    if package == "lawm_data" and not WITH_TORCH & set(inside[:1]):
        assert "torch" not in {name.split(".")[0] for name in imports_of(path)}


@pytest.mark.parametrize("module", ["lawm_data.cli", "lawm_data.envs", "lawm_data.config", "lawm_train.cli"])
def test_heavy_libraries_wait_until_they_are_needed(module: str) -> None:
    heavy = {"torch", "mujoco", "dm_control", "datasets", "h5py", "matplotlib"}
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stdout + answer.stderr


@pytest.mark.parametrize("command", ["lawm_data.cli", "lawm_train.cli"])
def test_help_answers(command: str) -> None:
    answer = subprocess.run([sys.executable, "-m", command, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0 and "Usage" in answer.stdout, answer.stderr


def test_each_equation_of_the_paper_is_named_once() -> None:
    named = [number for path in SOURCES for number in re.findall(r"\beq\. ?(\d+)", path.read_text())]
    assert sorted(map(int, named)) == list(range(1, 12))


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield f"{path}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_files_and_functions_are_small(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= 350, f"{path} has {lines} lines"
    long = [f"{where}: {count} lines" for where, count in functions_of(path) if count > 60]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_only_files_py_writes(path: Path) -> None:
    """Whatever opens a file for writing goes through files.py, so that nothing is seen half-written."""
    if path.name == "files.py":
        pytest.skip("the one that writes")
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    wrong = [f"{path}:{node.lineno}" for node in calls if _opens_for_writing(node)]
    assert not wrong, "\n".join(wrong)


def _opens_for_writing(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("write_text", "write_bytes"):
        return not (isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "files")
    given = [*call.args[:2], *(word.value for word in call.keywords if word.arg == "mode")]
    modes = [value.value for value in given if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    writes = any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
    return name == "open" and writes
