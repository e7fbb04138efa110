"""Files and folders that fail half-way: nothing that was there is lost."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lawm_data import files, hdf5
from lawm_data.errors import UserError


def test_a_folder_that_can_be_neither_replaced_nor_put_back_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second rename fails, and so does the way back; the next command's sweep finds it."""
    folder, replace, done = tmp_path / "dataset", os.replace, []

    def once(source: Path, target: Path) -> None:
        done.append(target)
        if len(done) > 1:
            raise OSError(errno.EIO, "no answer")
        replace(source, target)

    with files.new_folder(folder) as made:
        (made / "precious").touch()
    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(OSError), files.new_folder(folder):
        pass
    assert not folder.exists() and len(done) == 3
    monkeypatch.undo()
    files.sweep(tmp_path)
    assert (folder / "precious").exists() and list(tmp_path.iterdir()) == [folder]


def test_a_disk_without_locks_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told = r"cannot be locked .*; name one on a local disk with --root"
    with pytest.raises(UserError, match=told), files.lock(tmp_path):
        pass


def test_text_is_read_as_it_was_written_whatever_the_locale(tmp_path: Path) -> None:
    files.write_text(tmp_path / "recipe.yaml", "split: {quota: 7}  # 20 ± 3\n")
    files.write_bytes(tmp_path / "card.json", '{"credits": "Müller"}'.encode())
    program = (
        "from pathlib import Path; from lawm_data import config, files, slicing;"
        "print(config.load('recipe.yaml', [], {'split': slicing.Config}, {})['split'].quota,"
        "ascii(files.read_json(Path('card.json'))))"
    )
    old = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, **old}, capture_output=True, text=True
    )
    assert done.stdout.strip() == r"7 {'credits': 'M\xfcller'}", done.stderr


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a stand-in, as root may read everything."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr("h5py.File", refuse)
    with pytest.raises(UserError, match="may not be read; change its permissions"):
        files.read_json(tmp_path / "lawm.json")
    with pytest.raises(UserError, match="may not be read; change its permissions"), hdf5.opened(tmp_path / "0.h5", "0"):
        pass
