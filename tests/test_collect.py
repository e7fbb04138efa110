"""Laws of the collector: an episode depends on (seed, order) alone, and no interruption shows in the store."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from processes import count_files

from lawm_data import config, dreamer
from lawm_data.collect import Config, collect, env_seed, random_policy
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.store import Store

made = partial(Config, policy="random")
TINY = dreamer.Config(
    updates=1, batch=2, window=8, deter=6, stoch=3, embed=4, hidden=4, units=4, layers=1, horizon=2, bins=5
)
ENV = "pendulum-swingup"
REPEAT = 50  # short episodes: 20 agent steps
PROGRAM = """
import sys
from pathlib import Path
from lawm_data.collect import Config, collect
if __name__ == "__main__":
    episodes, repeat = map(int, sys.argv[3:])
    collect(Path(sys.argv[1]), sys.argv[2], Config(policy="random", episodes=episodes, repeat=repeat, round=2))
"""


def episodes_of(root: Path, env: str = ENV) -> list[Episode]:
    store = Store(root / "raw")
    return list(store.read(store.rows(env)))


def assert_same_store(one: Path, other: Path) -> None:
    episodes = [episodes_of(raw) for raw in (one, other)]
    assert [[episode.episode_id for episode in found] for found in episodes].count([]) == 0
    for a, b in zip(*episodes, strict=True):
        assert a.episode_id == b.episode_id and a.terminal == b.terminal
        for name in ("observation", "action", "reward"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes(), (a.episode_id, name)


def test_an_episode_depends_on_seed_and_order_alone(tmp_path: Path) -> None:
    collect(tmp_path / "one", ENV, made(episodes=7, seeds=2, repeat=REPEAT, round=7))
    collect(tmp_path / "two", ENV, made(episodes=4, seeds=1, repeat=REPEAT, round=3))
    collect(tmp_path / "two", ENV, made(episodes=7, seeds=2, repeat=REPEAT, round=2))
    assert_same_store(tmp_path / "one", tmp_path / "two")


def test_episodes_differ_and_fill_the_action_range(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(episodes=20, repeat=REPEAT))
    episodes = episodes_of(tmp_path)
    assert [(e.seed, e.order) for e in episodes] == [(0, k) for k in range(20)]
    assert len({e.observation[0].tobytes() for e in episodes}) == len({e.action.tobytes() for e in episodes}) == 20
    actions = np.concatenate([e.action for e in episodes])
    assert abs(actions.mean()) < 0.1 and abs(actions.std() - 1 / np.sqrt(3)) < 0.05
    mine, other = (random_policy(1, seed, range(2)) for seed in (0, 1))
    given = np.zeros((2, 3), np.float32), np.ones(2, bool)
    assert not np.array_equal(mine(*given), other(*given)), "seeds act on their own"
    assert len({env_seed(seed, order) for seed in range(5) for order in range(3000)}) == 15000


def test_what_lies_beyond_the_checkpoint_is_made_again(tmp_path: Path) -> None:
    config = made(episodes=6, repeat=REPEAT, round=2)
    collect(tmp_path / "whole", ENV, config)
    collect(tmp_path / "torn", ENV, config)
    seed_folder = tmp_path / "torn" / "raw" / ENV / "random" / "0"
    (seed_folder / "checkpoint.json").write_text('{"next_order": 4}')
    (seed_folder / "000004.h5").write_bytes(b"torn")
    collect(tmp_path / "torn", ENV, config)
    assert_same_store(tmp_path / "whole", tmp_path / "torn")


def test_the_next_step_names_env_and_workspace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for root in (tmp_path, Path("lawm")):
        collect(root, ENV, made(episodes=1, repeat=REPEAT))
    elsewhere, here = capsys.readouterr().out.splitlines()
    assert elsewhere.endswith(f"; next: lawm-data split --env {ENV} --root {tmp_path}")
    assert here.endswith(f"; next: lawm-data split --env {ENV}")


def test_finished_work_is_left_alone(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(episodes=4, repeat=REPEAT, round=2))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    collect(tmp_path, ENV, made(episodes=3, repeat=REPEAT, round=2))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == before


def test_other_settings_and_lost_files_are_refused(tmp_path: Path) -> None:
    config = made(episodes=4, repeat=REPEAT, round=2)
    collect(tmp_path, ENV, config)
    with pytest.raises(UserError, match="collected with repeat 50, now 25"):
        collect(tmp_path, ENV, made(episodes=8, repeat=25))
    (tmp_path / "raw" / ENV / "random" / "0" / "000002.h5").unlink()
    with pytest.raises(UserError, match=r"checkpoint\.json: says 4 episodes, but 2 are there"):
        collect(tmp_path, ENV, config)


@pytest.mark.parametrize("key", ["seeds", "episodes", "repeat", "round"])
def test_settings_are_positive(key: str) -> None:
    with pytest.raises(UserError, match=f"--set collect.{key}=0: collect.{key} is 0, expected 1 or more"):
        config.load("cpu", [f"collect.{key}=0"], {"collect": Config}, {})


def test_kills_leave_no_trace(tmp_path: Path) -> None:
    """SIGKILL five times while files appear, then let it end: the store equals the uninterrupted one."""
    episodes, repeat = 40, 10
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "killed"), ENV, str(episodes), str(repeat)]
    draw = random.Random(0)
    killed = 0
    for _ in range(5):
        process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL)
        before = count_files(tmp_path / "killed")
        while process.poll() is None and count_files(tmp_path / "killed") <= before:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed == 5
    assert 0 < len(episodes_of(tmp_path / "killed")) < episodes, "the kills came too late to test anything"
    subprocess.run(command, cwd=Path(__file__).parent.parent, check=True, stdout=subprocess.DEVNULL)
    collect(tmp_path / "whole", ENV, made(episodes=episodes, repeat=repeat))
    assert_same_store(tmp_path / "whole", tmp_path / "killed")
    assert not list((tmp_path / "killed").rglob(".partial*"))


def test_random_episodes_come_in_whole_rounds_wherever_a_collection_is_cut(tmp_path: Path) -> None:
    config = partial(Config, policy="dreamer", repeat=REPEAT, round=5, prefill=6, dreamer=TINY)
    collect(tmp_path / "whole", ENV, config(episodes=11))
    for episodes in (7, 11):
        collect(tmp_path / "parts", ENV, config(episodes=episodes))
    whole, parts = (episodes_of(tmp_path / name) for name in ("whole", "parts"))
    for one, other in zip(whole[:10], parts[:10], strict=True):
        np.testing.assert_array_equal(one.action, other.action)
    drawn = random_policy(1, 0, range(5, 10))
    first = np.stack([episode.action[0] for episode in whole[5:10]])
    np.testing.assert_array_equal(first, drawn(np.zeros((5, 3)), np.ones(5, bool)).astype(np.float32))
    assert "first 10 episodes random" in Store(tmp_path / "whole" / "raw").meta(ENV, "dreamer")["collected"]


@pytest.mark.parametrize(
    ("how", "to_all", "begun"),
    [(signal.SIGINT, True, "meta.json"), (signal.SIGTERM, True, "meta.json"), (signal.SIGTERM, False, "0/000000.h5")],
)
def test_a_signal_ends_collectors_and_what_they_started_in_one_line(
    tmp_path: Path, how: signal.Signals, to_all: bool, begun: str
) -> None:
    """Also while the processes of the seeds still import, and as a terminal does, which sends it to all of them."""
    words = ["collect", "--env", ENV, "--policy", "random", "--seeds", "2", "--episodes", "100000", "--root", "."]
    process = subprocess.Popen(
        [sys.executable, "-m", "lawm_data.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while process.poll() is None and not (tmp_path / "raw" / ENV / "random" / begun).exists():
        time.sleep(0.01)
    time.sleep(0.3)
    (os.killpg if to_all else os.kill)(process.pid, how)
    _, errors = process.communicate(timeout=60)  # all who hold the pipe have ended
    assert process.returncode == 128 + how, errors
    lines = [line for line in errors.splitlines() if line.strip() and "episode" not in line]
    assert lines == ["interrupted: run the same command again to continue"], errors
