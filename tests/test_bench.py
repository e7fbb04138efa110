"""`lawm-data bench` measures a dataset on the Hub or in a folder; what it compares with holds the same steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from loopback_hub import LoopbackHub
from made_dataset import made_episodes, make_dataset
from processes import client, python

from lawm_data import bench, files

FIGURES = ("pull", "read by lawm", "read by plain `datasets`", "a row per step", "time to the first batch", "windows")


def test_command_prints_a_table_of_the_users_own_data(tmp_path: Path) -> None:
    folder = tmp_path / "lawm" / "dataset" / "custom-made"
    make_dataset(folder, made_episodes())
    with LoopbackHub(tmp_path / "hub") as hub:
        assert client(hub, "push", folder, "tester/made")["outcomes"]["tester/made"]["error"] is None
        said = python(hub, "-m", "lawm_data.cli", "bench", "tester/made", "--repeats", "1")
        absent = python(hub, "-m", "lawm_data.cli", "bench", folder, "--slice", "expert")
    assert said.returncode == 0, said.stderr
    assert "cores" in said.stdout.splitlines()[0] and all(figure in said.stdout for figure in FIGURES)
    assert absent.returncode == 2 and "no slice 'expert'" in absent.stderr


def test_every_pull_from_a_folder_hashes_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a second one would cost nothing, and the speed be that of a look-up."""
    make_dataset(tmp_path / "made", made_episodes())
    (tmp_path / "scratch").mkdir()
    reading = bench.Reading.of(str(tmp_path / "made"), None, tmp_path / "scratch", repeats=2)
    hashed, sha256 = [], files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: hashed.append(path) or sha256(path))
    assert reading._pulling().what == "pull"
    assert reading.local and hashed == 3 * reading.local, "once to warm up, then twice"


def test_row_per_step_layout_holds_every_step(tmp_path: Path) -> None:
    episodes = [episode if episode.order else episode.stripped() for episode in made_episodes(3)]
    bench.write_steps(tmp_path / "steps.arrow", episodes)
    table = pa.ipc.open_file(str(tmp_path / "steps.arrow")).read_all()
    observation = np.stack(table.column("observation").to_numpy())
    np.testing.assert_array_equal(observation, np.concatenate([episode.observation[:-1] for episode in episodes]))
    assert table.column("action").null_count == episodes[0].length
