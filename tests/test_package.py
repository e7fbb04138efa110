"""What a user installs: the recipes travel in the wheel and are found from it and from an editable install.

Kernels are built with it where there is a C compiler.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from lawm_data import checkout
from lawm_data.nets import kernels

ROOT = Path(__file__).parent.parent
PACKAGES = ("lawm_data", "lawm_train")
FIND = "from lawm_data import config; print(config.__file__); print(config.recipe_path('cpu'))"


def found_from(cwd: Path, **environment: str) -> tuple[Path, Path]:
    answer = subprocess.run(
        [sys.executable, "-c", FIND],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    package, recipe = map(Path, answer.stdout.split())
    return package, recipe


def test_recipe_is_found_from_a_checkout() -> None:
    _, recipe = found_from(ROOT)
    assert recipe == ROOT / "recipes" / "cpu.yaml"


@pytest.mark.parametrize("compiler", [True, False])
def test_recipe_is_found_from_a_wheel(tmp_path: Path, compiler: bool) -> None:
    copy = tmp_path / "copy"  # building leaves folders among the sources
    for name in ("lawm_data", "lawm_train", "recipes"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    environment = os.environ if compiler else os.environ | {"CC": "/nonexistent"}
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(copy)], env=environment, check=True)

    (wheel,) = tmp_path.glob("lawm-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    recipes = {f"lawm_data/recipes/{path.name}" for path in (ROOT / "recipes").glob("*.yaml")}
    modules = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert recipes | modules <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lawm", *PACKAGES}
    built = any(name.endswith(tuple(EXTENSION_SUFFIXES)) for name in names)
    if not compiler:
        assert not built
    elif kernels.BUILT:  # then there is a compiler on this machine
        assert built
    package, recipe = found_from(tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert package.is_relative_to(tmp_path) and recipe == tmp_path / "site" / "lawm_data" / "recipes" / "cpu.yaml"


def test_the_commit_around_an_installed_package_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    installed = tmp_path / ".venv" / "checkout.py"
    installed.parent.mkdir()
    installed.write_text("")
    (tmp_path / "own.py").write_text("")
    for command in (["init", "-q"], ["add", "own.py"], ["commit", "-qm", "theirs"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(checkout, "__file__", str(installed))
    assert checkout.code_commit() is None
    monkeypatch.setattr(checkout, "__file__", str(tmp_path / "own.py"))
    assert re.fullmatch("[0-9a-f]{40}", str(checkout.code_commit()))
