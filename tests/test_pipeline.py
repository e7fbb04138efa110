"""The whole way: what an environment counts is what a window counts; the commands of the first screen, as processes.

Every stage is the real one: rollout, store, split, push, a Hub, stream, windows, training, evaluation.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import counting_episode
from loopback_hub import LoopbackHub
from processes import count_files

import lawm_data.cli
import lawm_train.cli
from lawm_data import files, rollout
from lawm_data.envs import Step
from lawm_data.episode import Episode
from lawm_data.manifest import Manifest
from lawm_data.runs import Run
from lawm_data.store import Store
from lawm_data.windows import Pool, Windows
from lawm_train.stream import Dataset, open_dataset

TESTS = Path(__file__).parent
TASK = "pendulum-swingup"
EPISODES = 24
SMALL = [
    "model.deter=8", "model.stoch=4", "model.embed=6", "model.hidden=6", "model.units=6", "model.latent_action=3",
    "agent.clap.updates=3", "agent.clap.units=6", "agent.idm.updates=5", "agent.idm.units=6",
    "train.updates=3", "train.batch=4", "train.window=8", "evaluate.episodes=2", "train.joint=false",
]  # fmt: skip
SETTINGS = [word for setting in SMALL for word in ("--set", setting)]


@dataclass(frozen=True)
class Client:
    """Runs real commands in a folder of its own, with the default workspace, against a loopback Hub."""

    folder: Path
    hub: LoopbackHub

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, **self.hub.environment(), "PYTHONPATH": str(TESTS.parent)}

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *_python(program), *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: str) -> str:
        process = self.start(program, *arguments)
        output, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, output + errors
        return output

    def cut(self, ready: Callable[[], bool], how: signal.Signals, *command: str) -> tuple[int, str, str]:
        """Start a command, send the signal once it is `ready`; its exit status and all it printed."""
        process = self.start(*command)
        deadline = time.monotonic() + 300
        while process.poll() is None and not ready() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(how)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    @property
    def rounds(self) -> int:
        """Files of episodes that `collect` has finished."""
        return count_files(self.folder / "lawm" / "raw")


def _python(program: str) -> list[str]:
    """`lawm-data` -> the module behind that script; anything else is a file."""
    scripts = {"lawm-data": "lawm_data.cli", "lawm-train": "lawm_train.cli"}
    return ["-m", scripts[program]] if program in scripts else [program]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    with LoopbackHub(tmp_path_factory.mktemp("hub")) as running:
        yield running


class CountingEnv:
    """Lives `helpers.counting_episode`: seed * 1000 + t is observed, and reward t follows action t."""

    def reset(self, seed: int) -> np.ndarray:
        self.order, self.t = seed, 0
        return self._observation()

    def step(self, action: np.ndarray) -> Step:
        assert action == np.float32(self.t) / np.float32(_length(self.order))
        reward = self.order + self.t / 1000
        self.t += 1
        return Step(self._observation(), reward, self.t == _length(self.order), False)

    def _observation(self) -> np.ndarray:
        count = self.order * 1000 + self.t
        return np.array([count, -count], np.float32)


def _length(order: int) -> int:
    return 20 + order % 7


def _counting_policy(observation: np.ndarray, first: np.ndarray) -> np.ndarray:
    order, t = np.divmod(observation[:, :1], 1000)
    return t / _length(order)


def _lived(count: int) -> list[Episode]:
    """Counting episodes that environments of unequal length lived through, some of them in step."""
    envs = [CountingEnv() for _ in range(3)]
    names = {"env": "custom:count", "source": "count", "seed": 0}
    return list(rollout.episodes(envs, _counting_policy, range(count), **names))


def test_environments_count() -> None:
    for episode in _lived(7):
        written = counting_episode(episode.order, _length(episode.order))
        assert episode.episode_id == written.episode_id
        for name in ("observation", "action", "reward"):
            np.testing.assert_array_equal(getattr(episode, name), getattr(written, name))


@pytest.fixture(scope="module")
def counted(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Manifest]:
    """40 lived episodes, stored, split, pushed, fetched by another process; and the manifest of the folder."""
    client = Client(tmp_path_factory.mktemp("counted"), hub)
    described = {"layout": [["count", 1], ["minus", 1]], "action_size": 1, "repeat": None}
    meta = described | {"collected": "counted", "credits": None, "slice": None}
    Store(client.folder / "lawm" / "raw").create("custom:count", "count", meta, _lived(40))
    split = ["split", "--root", str(client.folder / "lawm"), "--env", "custom:count", "--label-frac", "0.3"]
    _answer(lawm_data.cli.main, *split)
    client.run("lawm-data", "push")
    cache = client.folder / "cache"
    fetched = json.loads(client.run(str(TESTS / "stream_client.py"), "tester/lawm-custom-count", str(cache)))
    dataset = open_dataset(f"tester/lawm-custom-count@{fetched['revision']}", cache)  # whole, without a network
    return dataset, Manifest.load(client.folder / "lawm" / "dataset" / "custom-count")


def test_windows_from_the_hub_still_count(counted: tuple[Dataset, Manifest]) -> None:
    dataset, _ = counted
    length = 9
    pools = [Pool(dataset.episodes("medium-replay", kind), kind == "labeled", 1) for kind in ("labeled", "unlabeled")]
    orders = [{e.order for e in dataset.episodes("medium-replay", kind)} for kind in ("labeled", "unlabeled")]
    lived = {episode.order: episode for episode in _lived(40)}
    windows = Windows([pools, pools], [0, 1], length, [16, 48])
    seen: set[tuple[int, int]] = set()
    for index in range(30):
        batch = windows.batch(index)
        assert torch.equal(batch.observation[..., 1], -batch.observation[..., 0])
        for n, b in np.ndindex(2, 64):
            order, k = divmod(int(batch.observation[0, n, b, 0]), 1000)
            seen.add((order, k))
            whole = lived[order]
            assert whole.action is not None
            np.testing.assert_array_equal(batch.observation[:, n, b], whole.observation[k : k + length + 1])
            np.testing.assert_array_equal(batch.reward[:, n, b], whole.reward[k : k + length])
            labeled = bool(batch.labeled[n, b])
            assert labeled == (b < 16) and order in orders[0 if labeled else 1]
            known = whole.action[k : k + length] if labeled else np.zeros((length, 1))
            np.testing.assert_array_equal(batch.action[:, n, b], known)
    assert {order for order, _ in seen} == orders[0] | orders[1]
    assert {(order, 0) for order in orders[1]} <= seen and {k for _, k in seen} == set(range(26 - length + 1))


def test_what_arrives_is_what_the_manifest_says(counted: tuple[Dataset, Manifest]) -> None:
    dataset, manifest = counted
    assert dataset.manifest == manifest
    statistics = manifest.slices["medium-replay"].statistics
    arrived = {kind: list(dataset.episodes("medium-replay", kind)) for kind in ("labeled", "unlabeled", "validation")}
    assert {kind: len(found) for kind, found in arrived.items()} == {"labeled": 11, "unlabeled": 27, "validation": 2}
    assert (statistics["labeled"], statistics["episodes"]) == (11, 38)
    assert sorted(e.order for found in arrived.values() for e in found) == list(range(40))
    assert all((e.action is None) == (kind == "unlabeled") for kind, found in arrived.items() for e in found)


@pytest.fixture(scope="module")
def journey(hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Client:
    """The four commands of the first screen, one after the other; collect is interrupted and killed before."""
    client = Client(tmp_path_factory.mktemp("journey"), hub)
    short = ("--episodes", str(EPISODES), "--set", "collect.round=4", "--set", "collect.repeat=10")  # 100 agent steps
    short += ("--set", "collect.dreamer.updates=1")
    collect = ("lawm-data", "collect", "--env", TASK, *short)
    status, _, errors = client.cut(lambda: client.rounds >= 1, signal.SIGINT, *collect)
    assert status == 130 and errors.splitlines()[-1] == "interrupted: run the same command again to continue"
    rounds = client.rounds
    status, _, _ = client.cut(lambda: client.rounds > rounds, signal.SIGKILL, *collect)
    assert status == -signal.SIGKILL and rounds < client.rounds < EPISODES // 4, "cut too late to test anything"
    assert ", 0 were there" not in client.run(*collect) and client.rounds == EPISODES // 4
    client.run("lawm-data", "split", "--label-frac", "0.05")
    client.run("lawm-data", "push")
    first, *_, last = client.run("lawm-train", "--hub-dataset", f"tester/lawm-{TASK}", *SETTINGS).splitlines()
    assert "recipe cpu, slice medium-replay (Hub dataset" in first and "method lawm" in first and "min" in first
    assert "1 of 23 episodes labeled, seed 0, windows drawn uniformly from all" in first
    assert last == f"done: lawm/runs/{TASK}-medium-replay-lawm-s0"
    return client


def test_the_first_screen_ends_with_a_scored_policy(journey: Client) -> None:
    run = Run(journey.folder / "lawm" / "runs" / f"{TASK}-medium-replay-lawm-s0")
    assert run.positions()[-1] == (1, 3) and run.config["labeled"] == 1
    scored = [row for row in run.metrics() if row["kind"] == "evaluate"]
    assert [(row["phase"], len(row["returns"])) for row in scored] == [("model", 2), ("agent", 2)]
    assert not list(journey.folder.rglob(f"{files.PARTIAL}*"))


def test_a_run_is_evaluated_reported_and_diagnosed(journey: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(journey.folder)
    run, dataset = f"lawm/runs/{TASK}-medium-replay-lawm-s0", f"lawm/dataset/{TASK}"
    assert "over 2 episodes" in _answer(lawm_train.cli.main, "evaluate", run, "--episodes", "2")
    assert "over 2 episodes" in _answer(lawm_train.cli.main, "evaluate", run, "--episodes", "2", "--policy", "prior")
    table = _answer(lawm_train.cli.main, "report", run, "--out", "report")
    assert f"| {TASK} | medium-replay | LAWM | 1 | 1 |" in table and "LAWM prior-policy" in table
    names = {"report.md", "table1.csv", "scores.csv", "curves.png"}
    assert {path.name for path in Path("report").iterdir()} == names
    rungs = _answer(lawm_train.cli.main, "diagnose", run, "--hub-dataset", dataset)
    assert all(name in rungs for name in ("labeled path", "inferred actions", "open loop")) and "FAILED" in rungs


def test_a_folder_and_the_hub_train_the_very_same_numbers(journey: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(journey.folder)
    _answer(lawm_train.cli.main, "--hub-dataset", f"lawm/dataset/{TASK}", "--name", "folder", *SETTINGS)
    there, here = Run(Path(f"lawm/runs/{TASK}-medium-replay-lawm-s0")), Run(Path("lawm/runs/folder-s0"))
    ours, theirs = here.load(here.newest)[0], there.load(there.newest)[0]
    assert ours.keys() == theirs.keys() and all(torch.equal(x, theirs[name]) for name, x in ours.items())
    configs = here.config, there.config
    revisions = [config["dataset"].pop("revision") for config in configs]
    names = [config["about"].pop("dataset") for config in configs]
    assert configs[0] == configs[1]
    assert names == [None, f"tester/lawm-{TASK}"]
    assert revisions == [None, journey.hub.dataset(f"tester/lawm-{TASK}").branches["main"]]


def _answer(group: click.Group, *arguments: str) -> str:
    answer = CliRunner().invoke(group, arguments)
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.mark.slow
def test_the_first_screen_without_any_option(tmp_path: Path) -> None:
    """As a stranger types it; training is interrupted once it shows progress, and says how to go on."""
    with LoopbackHub(tmp_path / "hub") as running:
        client = Client(tmp_path, running)
        status, _, _ = client.cut(lambda: client.rounds >= 3, signal.SIGINT, "lawm-data", "collect", "--env", TASK)
        assert status == 130
        # 40 episodes are enough to cut a slice from; all 600 take most of an hour
        client.cut(lambda: client.rounds >= 8, signal.SIGKILL, "lawm-data", "collect", "--env", TASK)
        client.run("lawm-data", "split", "--label-frac", "0.05")
        client.run("lawm-data", "push")
        log = tmp_path / "lawm" / "runs" / f"{TASK}-medium-replay-lawm-s0" / "metrics.jsonl"
        command = ("lawm-train", "--hub-dataset", f"tester/lawm-{TASK}")
        status, output, errors = client.cut(log.exists, signal.SIGINT, *command)
    assert status == 130 and "method lawm" in output.splitlines()[0] and "update/s" in errors
    assert errors.splitlines()[-1] == "interrupted: run the same command again to continue"
    assert "Traceback" not in errors
