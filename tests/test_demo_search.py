"""The demo's data: the same however many processes make them, read back by the importer, a search that climbs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from lawm_data import envs, files
from lawm_data.collect import env_seed
from lawm_data.episode import Episode
from lawm_data.importers.d4rl import D4rl

ENV, SEED = "cartpole-swingup", 3  # cheap to simulate
TINY = {"random": 12, "generations": 2, "directions": 2, "repeats": 1, "kept": 20}  # 22 episodes tried

Made = tuple[Path, list[Episode]]


@pytest.fixture(scope="module")
def search() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        # for the processes that the module spawns too: they import it by its name
        patch.syspath_prepend(str(Path(__file__).parent.parent / "recipes" / "demo"))
        yield importlib.import_module("search")


@pytest.fixture(scope="module")
def made(search: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("demo") / "search.hdf5"
    return path, search.make(path, ENV, SEED, search.Search(**TINY), processes=2)


def test_file_is_the_same_from_one_process(search: ModuleType, made: Made, tmp_path: Path) -> None:
    search.make(tmp_path / "again.hdf5", ENV, SEED, search.Search(**TINY), processes=1)
    assert files.sha256(tmp_path / "again.hdf5") == files.sha256(made[0])


def test_history_is_drawn_in_order(made: Made) -> None:
    orders = [episode.order for episode in made[1]]
    assert orders == sorted(set(orders))
    assert len(orders) == TINY["kept"]


def test_importer_reads_back_what_was_recorded(made: Made) -> None:
    path, episodes = made
    recording = D4rl([path])
    trajectories = list(recording.trajectories(recording.layout))
    for trajectory, episode in zip(trajectories, episodes, strict=True):
        np.testing.assert_array_equal(trajectory.observation, episode.observation)
        np.testing.assert_array_equal(trajectory.action, episode.action)
        np.testing.assert_array_equal(trajectory.reward, episode.reward)
        assert trajectory.terminal == episode.terminal
    with h5py.File(path) as file:
        assert {array.dtype for array in file.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("which", [0, -1])  # random actions, and the last generation's
def test_recorded_actions_lead_to_the_recorded_observations(made: Made, which: int) -> None:
    episode = made[1][which]
    env = envs.make(ENV)
    replayed = [env.reset(env_seed(SEED, episode.order))]
    replayed += [env.step(action).observation for action in episode.action]
    np.testing.assert_array_equal(np.stack(replayed), episode.observation)


def test_every_policy_has_its_own_weights_and_noise(search: ModuleType) -> None:
    weights = np.zeros((3, 1, 3))
    weights[1, 0] = [0.5, 0.0, 0.1]
    weights[2, 0] = [0.0, -9.0, 0.0]
    observation = np.array([[3.0, 4.0]] * 3)
    scale = np.array([1.0, 2.0]), np.array([4.0, 2.0])  # the observation is (0.5, 1) when normalised
    silent = search.Linear(weights, *scale, noise=0.0)
    np.testing.assert_allclose(silent.act(observation, _generators()), [[0.0], [0.35], [-1.0]])
    noisy = search.Linear(np.zeros((3, 1, 3)), *scale, noise=0.1).act(observation, _generators())
    np.testing.assert_allclose(noisy[:, 0], [0.1 * generator.standard_normal() for generator in _generators()])


def test_moments_are_those_of_all_observations(search: ModuleType, made: Made) -> None:
    moments = search.Moments(made[1][0].observation.shape[1])
    moments.add(made[1][:7])
    moments.add(made[1][7:])
    everything = np.concatenate([episode.observation for episode in made[1]]).astype(np.float64)
    mean, std = moments.scale()
    np.testing.assert_allclose(mean, everything.mean(0))
    np.testing.assert_allclose(std, np.maximum(everything.std(0), 0.01))


def test_search_climbs_a_slope(search: ModuleType) -> None:
    slope = np.array([[2.0, -1.0, 0.0]])
    directions = np.random.default_rng(0).standard_normal((200, 1, 3))
    gain = np.tensordot(directions, slope, axes=2)
    way = search.ascent(directions, 100 + np.stack([gain, -gain]))
    assert np.sum(way * slope) > 0.99 * np.linalg.norm(way) * np.linalg.norm(slope)


def test_search_stands_still_where_nothing_earns(search: ModuleType) -> None:
    assert not search.ascent(np.ones((4, 1, 3)), np.zeros((2, 4))).any()


def _generators() -> list[np.random.Generator]:
    return [np.random.default_rng(k) for k in range(3)]
