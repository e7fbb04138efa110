"""Laws of `show`: a picture of what was recorded, a film only of what the simulator repeats number by number."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from given import run, succeed
from PIL import Image
from test_split import made, store

from lawm_data import envs, show
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.store import Store

RANDOM = "lawm-data collect --env pendulum-swingup --policy random"
COLLECT = f"{RANDOM} --episodes 2 --set collect.round=2 --set collect.repeat=50"


def opened(path: str) -> Image.Image:
    return Image.open(BytesIO(Path(path).read_bytes()))


def test_the_best_episode_is_shown_by_default() -> None:
    store(Path("lawm"), made(5))
    answer = run("lawm-data show")
    best = max(made(5), key=lambda episode: episode.episode_return)
    path = f"lawm/figures/custom-made-made-0-{best.order:06d}.png"
    assert answer.stdout == f"{path}: {best.episode_id}, 30 steps, return {best.episode_return:.1f}\n", answer.output
    assert opened(path).size == (1000, 780)  # four panels: two parts of the observation, action, reward


def test_a_picture_depends_on_the_episode_alone() -> None:
    store(Path("lawm"), made(5))
    for k, order in enumerate((3, 3, 2)):
        succeed(f"lawm-data show custom:made/made/0/00000{order} --out {k}.png")
    first, again, other = (Path(f"{k}.png").read_bytes() for k in range(3))
    assert first == again != other


def test_an_episode_without_actions_has_a_picture() -> None:
    store(Path("lawm"), [episode.stripped() for episode in made(2)])
    succeed("lawm-data show --out picture.png")
    assert opened("picture.png").size == (1000, 600)


class Screen:
    """An environment that draws its step as the height of a white bar."""

    step_seconds = 0.1

    def __init__(self, env: envs.SuiteEnv):
        self.env = env
        self.height = 1

    def reset(self, seed: int) -> np.ndarray:
        self.height = 1
        return self.env.reset(seed)

    def step(self, action: np.ndarray) -> envs.Step:
        self.height += 1
        return self.env.step(action)

    def render(self, height: int, width: int) -> np.ndarray:
        frame = np.zeros((height, width, 3), np.uint8)
        frame[: self.height] = 255
        return frame


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make = envs.make
    monkeypatch.setattr(envs, "make", lambda name, repeat: Screen(make(name, repeat)))
    yield


def test_a_film_shows_every_state_of_the_replay(screen: None) -> None:
    succeed(COLLECT)
    succeed("lawm-data show --video --out film.gif")
    film = opened("film.gif")
    assert (film.n_frames, film.size, film.info["duration"]) == (21, (show.WIDTH, show.HEIGHT), 100)
    for frame in range(film.n_frames):
        film.seek(frame)
        assert np.sum(np.asarray(film.convert("L"))[:, 0] > 128) == frame + 1


def changed(episode: Episode, step: int) -> Episode:
    observation = episode.observation.copy()
    observation[step, 0] = np.nextafter(observation[step, 0], np.inf, dtype=np.float32)
    return replace(episode, observation=observation)


def test_a_film_of_what_the_simulator_does_not_repeat_is_refused(screen: None) -> None:
    succeed(COLLECT)
    history = Store(Path("lawm/raw"))
    (episode,) = history.read(history.rows("pendulum-swingup")[:1])
    assert show.film(episode, 50)
    for step in (0, 7, 20):
        with pytest.raises(UserError, match=f"leaves the recording at step {step};"):
            show.film(changed(episode, step), 50)


@pytest.mark.slow
def test_a_film_or_one_line() -> None:
    """With whatever renderer there is: this needs a process of its own, for the choice is made on import."""
    succeed(COLLECT)
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    command = [sys.executable, "-m", "lawm_data.cli", "show", "--video", "--out", "film.gif"]
    root = str(Path(show.__file__).parent.parent)
    answer = subprocess.run(command, env=environment | {"PYTHONPATH": root}, capture_output=True, text=True)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
        assert answer.returncode == 2 and "no renderer: MUJOCO_GL=egl" in lines[0], answer.stderr
        assert not Path("film.gif").exists()
    else:
        film = opened("film.gif").convert("RGB")
        assert len(film.getcolors(1 << 20) or []) > 10  # a scene, not an empty picture
