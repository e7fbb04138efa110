"""Laws of the import of LeRobot's datasets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from foreign import lerobot_columns, write_lerobot
from given import run, succeed
from helpers import random_episode
from test_importers import CUSTOM, EPISODES, check_same, imported
from test_sources import shortened, source_meta, walker_parts

from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import Manifest
from lawm_data.runs import Run
from lawm_data.store import Store
from lawm_train.policy import Policy

DATASET = "lawm/dataset/custom-count"


def scaled(episodes: list[Episode]) -> list[Episode]:
    """As the import gives them: without the last step, actions between the least and the greatest of all."""
    known = np.concatenate([one.action for one in episodes if one.action is not None])
    low, high = known.min(0).astype(np.float64), known.max(0).astype(np.float64)
    assert (low < high).all()
    return [
        shortened(replace(one, action=((one.action - (low + high) / 2) / ((high - low) / 2)).astype(np.float32)))
        for one in episodes
    ]


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_lerobot_is_aligned_wherever_its_files_end(tmp_path: Path, version: str) -> None:
    folder = write_lerobot(tmp_path / "set", [lerobot_columns(episode) for episode in EPISODES], version)
    found = imported(tmp_path / "raw", "lerobot", folder)
    check_same(found, scaled(EPISODES))
    assert [float(one.observation[0, 0]) for one in found] == [1000 * k for k in range(12)]
    meta = source_meta(tmp_path / "raw")
    assert meta["layout"] == [["state", 2]]
    assert meta["action_bounds"] == [[0, pytest.approx(0.95)]]


def test_several_datasets_are_one_recording(tmp_path: Path) -> None:
    """Each counts its episodes from 0; one range of the actions holds for all."""
    halves = [[replace(one, order=k) for k, one in enumerate(half)] for half in (EPISODES[:5], EPISODES[5:])]
    halves[1] = [replace(one, action=2 * one.action) for one in halves[1] if one.action is not None]
    folders = [
        write_lerobot(tmp_path / f"{k}", [lerobot_columns(one) for one in half]) for k, half in enumerate(halves)
    ]
    found = imported(tmp_path / "raw", "lerobot", *folders)
    check_same(found, scaled([*halves[0], *halves[1]]))
    other = write_lerobot(tmp_path / "other", [lerobot_columns(random_episode(0))])
    with pytest.raises(UserError, match="other: observes other numbers than .*0; import them apart"):
        imported(tmp_path / "raw", "lerobot", folders[0], other)
    other = write_lerobot(tmp_path / "wide", [lerobot_columns(random_episode(0, observation_size=2))])
    with pytest.raises(UserError, match="wide: 'action' has size 2, in a dataset before 1; import them apart"):
        imported(tmp_path / "raw", "lerobot", folders[0], other)


def test_what_is_observed_is_every_vector_of_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the order of the features; scalars too, no images, no clouds of points."""
    columns = [lerobot_columns(one) for one in EPISODES]
    for one in columns:
        one["observation.clock"] = 10 * one["frame_index"].astype(np.float64)
    unread = {"observation.images.top": {"dtype": "video", "shape": [4, 4, 3]}}
    unread["observation.points"] = {"dtype": "float32", "shape": [9, 3]}
    folder = write_lerobot(tmp_path / "set", columns, features=unread, total_tasks=3)
    for episode in imported(tmp_path / "raw", "lerobot", folder):
        steps = np.arange(len(episode.observation))
        np.testing.assert_array_equal(episode.observation[:, 2], 10 * steps)
        np.testing.assert_array_equal(episode.observation[:, 0] % 1000, steps)
    said = capsys.readouterr()
    assert "observed: state (2), clock (1)" in said.out
    assert (
        "left out, as no numbers of a state: observation.images.top (video), observation.points (float32)" in said.err
    )
    assert "3 tasks, which are not told apart" in said.err


def test_rewards_that_go_with_the_last_steps_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = [lerobot_columns(one) for one in EPISODES]
    for one in columns:
        one["next.reward"] = (np.isin(one["frame_index"], [0, len(one["frame_index"]) - 1])).astype(np.float32)
    imported(tmp_path / "raw", "lerobot", write_lerobot(tmp_path / "set", columns))
    note = "the last step of each of 12 episodes is left out, its end is unknown, and 50% of all rewards with it"
    assert note in capsys.readouterr().err and note in source_meta(tmp_path / "raw")["collected"]


def test_episodes_without_actions_are_those_episodes_stripped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """NaN in one, in the fourth row alone of another; in a dataset of its own they have no column of actions."""
    few, many = [lerobot_columns(one) for one in EPISODES[:6]], [lerobot_columns(one) for one in EPISODES[6:]]
    few[2]["action"] = np.full_like(few[2]["action"], np.nan)
    few[3]["action"] = few[3]["action"].copy()
    few[3]["action"][3] = np.nan
    for one in many:
        del one["action"]
    expected = [one.stripped() if k in (2, 3) or k >= 6 else one for k, one in enumerate(scaled(EPISODES))]
    parts = write_lerobot(tmp_path / "few", few), write_lerobot(tmp_path / "many", many)
    check_same(imported(tmp_path / "raw", "lerobot", *parts), expected)
    said = capsys.readouterr()
    assert "6 episodes have no array 'action', so they come without actions" in said.err
    assert "1 episodes lack some of their actions (NaN)" in said.err and "few, episode 3" in said.err
    for part in parts:
        imported(tmp_path / "apart", "lerobot", part)
    store = Store(tmp_path / "apart")
    assert sorted(row.has_action for row in store.rows(CUSTOM)) == [False] * 8 + [True] * 4


def test_a_single_frame_and_a_damaged_file_are_told(tmp_path: Path) -> None:
    columns = [lerobot_columns(one) for one in EPISODES[:3]]
    columns[1] = {name: rows[:1] for name, rows in columns[1].items()}
    folder = write_lerobot(tmp_path / "set", columns)
    with pytest.raises(UserError, match="episode 1: a single frame"):
        imported(tmp_path / "raw", "lerobot", folder)
    path = sorted(folder.rglob("*.parquet"))[1]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="file-001.parquet: not readable as a parquet file"):
        imported(tmp_path / "raw", "lerobot", folder)
    table = pq.read_table(folder / "data" / "chunk-000" / "file-000.parquet")
    reward = table["next.reward"].to_pylist()
    nulls = table.set_column(table.column_names.index("next.reward"), "next.reward", [[None, *reward[1:]]])
    pq.write_table(nulls, folder / "data" / "chunk-000" / "file-000.parquet")
    with pytest.raises(UserError, match="'next.reward' has rows without a number"):
        imported(tmp_path / "raw", "lerobot", folder)


def test_observations_of_a_task_are_taken_by_name_or_in_its_order(tmp_path: Path) -> None:
    parts = walker_parts(20)
    named = {f"observation.{name}": rows for name, rows in reversed(parts.items())}
    whole = {"observation.state": np.concatenate(list(parts.values()), axis=1)}
    for k, observed in enumerate((named, whole)):
        columns = lerobot_columns(random_episode(0, 20, action_size=6)) | observed
        if k == 0:
            del columns["observation.state"]
        (episode,) = imported(
            tmp_path / f"{k}", "lerobot", write_lerobot(tmp_path / f"set{k}", [columns]), env="walker-walk"
        )
        np.testing.assert_array_equal(episode.observation[3], np.arange(24))
    del columns["observation.state"]
    columns |= {"observation.height": parts["height"], "observation.velocity": parts["velocity"]}
    folder = write_lerobot(tmp_path / "less", [columns])
    with pytest.raises(UserError, match=r"no 'observation.orientations', found height, velocity; check --env"):
        imported(tmp_path / "2", "lerobot", folder, env="walker-walk")


def test_a_policy_acts_in_the_units_of_the_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A joint that never moved is commanded where it stood."""
    monkeypatch.chdir(tmp_path)
    columns = [lerobot_columns(random_episode(k)) for k in range(20)]
    for one in columns:
        one["action"] = np.stack([10 + 5 * one["action"][:, 0], np.full(len(one["action"]), 90)], 1).astype(np.float32)
    write_lerobot(Path("set"), columns)
    for command in (f"lawm-data import lerobot set --env {CUSTOM}", "lawm-data split", f"lawm-data verify {DATASET}"):
        succeed(command)
    recorded = np.concatenate([one["action"] for one in columns])
    bounds = list(zip(recorded.min(0).tolist(), recorded.max(0).tolist(), strict=True))
    assert Manifest.load(Path(DATASET)).action_bounds == bounds and bounds[1] == (90, 90)
    answer = run(f"lawm-train --hub-dataset {DATASET} --method bc --set agent.bc.updates=2 --set train.window=8")
    assert answer.exit_code == 0, answer.output
    (path,) = Path("lawm/runs").iterdir()
    policy, store = Policy.from_pretrained(Run(path).path), Store(Path("lawm/raw"))
    for episode, one in zip(store.read(store.rows(CUSTOM)), columns, strict=True):
        assert episode.action is not None and (episode.action[:, 1] == 0).all()
        np.testing.assert_allclose(policy.unscale_action(episode.action), one["action"][:-1], atol=1e-5)
    assert (policy.unscale_action(np.ones(2)) == recorded.max(0)).all()
