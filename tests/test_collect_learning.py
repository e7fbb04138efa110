"""Laws of collecting with an agent that learns: interruptions leave no trace, and nothing is overwritten by mistake."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from processes import count_files

from lawm_data import dreamer, envs, files, plan2explore
from lawm_data.collect import Config, collect, rounds
from lawm_data.dreamer import Dreamer
from lawm_data.errors import UserError
from lawm_data.learner import Learner, kept_policies
from lawm_data.nets.blocks import Noise
from lawm_data.runs import Position, Run
from lawm_data.store import Store
from lawm_data.windows import Windows

ENV = "pendulum-swingup"
TINY = dreamer.Config(
    updates=2, batch=2, window=8, deter=6, stoch=3, embed=4, hidden=4, units=4, layers=1, horizon=2, bins=5
)
made = partial(
    Config,
    repeat=50,  # short episodes: 20 agent steps
    round=2,
    prefill=2,
    dreamer=TINY,
    plan2explore=plan2explore.Config(members=2, units=4, layers=1),
)
PROGRAM = """
import sys
sys.path.insert(0, "tests")
from pathlib import Path
from lawm_data.collect import collect
import test_collect_learning as here
if __name__ == "__main__":
    collect(Path(sys.argv[1]), here.ENV, here.made(episodes=int(sys.argv[2])))
"""


def contents(root: Path) -> dict[str, bytes]:
    """Every file of the store and, of the run, the tensors; logs hold seconds."""
    paths = [path for path in root.rglob("*") if path.suffix in (".h5", ".safetensors", ".json")]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.name != "state.json"}


def run_of(root: Path, policy: str = "dreamer") -> Run:
    return Run(root / "runs" / f"collect-{ENV}-{policy}-s0")


@pytest.mark.parametrize("policy", ["dreamer", "plan2explore"])
def test_a_collection_in_parts_is_the_whole(tmp_path: Path, policy: str) -> None:
    collect(tmp_path / "whole", ENV, made(policy=policy, episodes=9))
    for episodes in (4, 8, 9):
        collect(tmp_path / "parts", ENV, made(policy=policy, episodes=episodes))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    rows = Store(tmp_path / "whole" / "raw").rows(ENV)
    assert {row.slice_name for row in rows} == {"plan2explore" if policy == "plan2explore" else None}


def test_an_explorer_acts_with_samples_and_has_its_own_entropy_weight(tmp_path: Path) -> None:
    spec = envs.spec(ENV, 50)
    explore = plan2explore.Config(members=2, units=4, layers=1, entropy=0.5)
    learner = Learner(spec, TINY, explore, 0, Run(tmp_path), "cpu", 1)
    assert learner.agent.config == replace(TINY, entropy=0.5)
    observation, first = np.zeros((1, spec.observation_size), np.float32), np.ones(1, bool)
    drawn = [learner.policy(order)(observation, first).tolist() for order in (2, 4, 2)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_each_update_of_a_history_has_a_batch_and_noise_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, noises = [], []
    batch, update = Windows.batch, Dreamer.update
    monkeypatch.setattr(
        Windows, "batch", lambda self, index, stream="": drawn.append(index) or batch(self, index, stream)
    )
    monkeypatch.setattr(Dreamer, "update", lambda self, of, noise: noises.append(noise.step) or update(self, of, noise))
    collect(tmp_path, ENV, made(episodes=8))
    assert drawn == noises == list(range(8 * TINY.updates))


def test_each_update_draws_from_the_whole_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, updates = [], Learner._updates

    def noted(self: Learner, *rest: Any) -> dict[str, float]:
        assert self.replay is not None
        held.append(len(self.replay))
        return updates(self, *rest)

    monkeypatch.setattr(Learner, "_updates", noted)
    for episodes in (4, 8):  # the second continues the first
        collect(tmp_path, ENV, made(episodes=episodes))
    assert held == [2, 4, 6, 8]


def test_interruptions_at_any_point_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = made(episodes=8)
    collect(tmp_path / "whole", ENV, config)
    for owner, name in ((Learner, "learn"), (Learner, "policy"), (Run, "save"), (Run, "log")):
        for call in (1, 2):
            _interrupt(monkeypatch, owner, name, call)
            with pytest.raises(KeyboardInterrupt):
                collect(tmp_path / name, ENV, config)
            monkeypatch.undo()
        collect(tmp_path / name, ENV, config)
        assert contents(tmp_path / name) == contents(tmp_path / "whole"), name


def _interrupt(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int) -> None:
    original, calls = getattr(owner, name), iter(range(1, 100))

    def interrupted(*arguments: object, **words: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **words)

    monkeypatch.setattr(owner, name, interrupted)


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_leave_no_trace(tmp_path: Path, kills: int) -> None:
    """SIGKILL at random moments, each time rerun: the store and the learner equal the uninterrupted ones."""
    episodes, draw = 4 * kills + 16, random.Random(kills)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "killed"), str(episodes)]

    def recorded() -> int:  # not of the run folder: checkpoints vanish while one looks
        return count_files(tmp_path / "killed" / "raw")

    here = Path(__file__).parent.parent
    killed = 0
    for _ in range(kills):
        process = subprocess.Popen(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = recorded()
        while process.poll() is None and recorded() <= before:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed == kills
    assert recorded() < episodes, "the kills came too late to test anything"
    subprocess.run(command, cwd=here, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    collect(tmp_path / "whole", ENV, made(episodes=episodes))
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob(".partial*"))


def test_seeds_run_as_processes_and_learn_as_they_would_alone(tmp_path: Path) -> None:
    collect(tmp_path / "both", ENV, made(episodes=4, seeds=2))
    collect(tmp_path / "one", ENV, made(episodes=4))
    both, one = contents(tmp_path / "both"), contents(tmp_path / "one")
    assert both.items() >= one.items() and len(both) > len(one)


def test_policies_are_kept_every_25_episodes(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(episodes=52))
    kept = sorted(path.name for path in run_of(tmp_path).path.glob("policy-*"))
    assert kept == ["policy-000026.safetensors", "policy-000050.safetensors"]
    tensors = safetensors.torch.load_file(run_of(tmp_path).path / kept[1])
    assert {name.split(".")[1] for name in tensors} == {"encoder", "rssm", "actor"}
    rows = list(run_of(tmp_path).metrics())
    assert [row["update"] for row in rows] == list(range(2, 53, 2))
    assert {"return", "rollout_seconds", "learn_seconds", "actor", "critic", "observation"} <= rows[0].keys()


def test_every_round_has_noise_of_its_own_and_every_seed_a_dreamer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, policy = [], Learner.policy
    monkeypatch.setattr(Learner, "policy", lambda self, order: asked.append(order) or policy(self, order))
    collect(tmp_path, ENV, made(episodes=8))
    assert asked == [2, 4, 6]
    spec = envs.spec(ENV, 50)
    learners = [Learner(spec, TINY, None, seed, Run(tmp_path / str(seed)), "cpu", 1) for seed in (0, 1)]
    for seed, learner in enumerate(learners):
        fresh = Dreamer(TINY, [seed], spec.observation_size, spec.action_size)
        assert all(torch.equal(x, fresh.state_dict()[name]) for name, x in learner.agent.state_dict().items())
    assert not torch.equal(*(next(learner.agent.actor.parameters()) for learner in learners))


def test_a_collector_draws_by_its_own_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ensemble, the noise of acting and learning, its windows: else collectors would explore alike."""
    collect(tmp_path, ENV, made(policy="random", episodes=2))
    store, asked = Store(tmp_path / "raw"), []

    def noted(kind: type, place: int) -> Any:
        return lambda *given: asked.append((kind.__name__, given[place])) or kind(*given)

    for kind, place in ((plan2explore.Disagreement, 1), (Noise, 0), (Windows, 1)):
        monkeypatch.setattr(f"lawm_data.learner.{kind.__name__}", noted(kind, place))
    explore = plan2explore.Config(members=2, units=4, layers=1)
    one = Learner(envs.spec(ENV, 50), TINY, explore, 3, Run(tmp_path / "other"), "cpu", 1)
    one.policy(2)
    one._remember(store.read(store.rows(ENV)))
    one._updates(range(2), lambda share: None)
    assert asked == [("Disagreement", [3]), ("Noise", [3]), ("Windows", [3]), *[("Noise", [3])] * 2 * TINY.updates]


def test_what_does_not_belong_together_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(episodes=4))
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"collect-pendulum-swingup-dreamer-s0: was begun with other settings \(.*round"
    ):
        collect(tmp_path, ENV, made(episodes=8, round=1))
    for checkpoint in run_of(tmp_path).path.glob("checkpoint-*"):
        checkpoint.rename(tmp_path / checkpoint.name)
    run_of(tmp_path).save(Position(0, 6), {"x": torch.zeros(1)}, {})  # of a store that had more
    with pytest.raises(UserError, match="no checkpoint of the learner after 4 episodes; restore the folder, or coll"):
        collect(tmp_path, ENV, made(episodes=8))
    assert run_of(tmp_path).positions() == [Position(0, 6)]
    shutil.rmtree(run_of(tmp_path).checkpoint(Position(0, 6)))
    with pytest.raises(
        UserError, match=r"dreamer-s0: was begun with other settings \(settings.collect.dreamer.lr was .*another --root"
    ):
        collect(tmp_path, ENV, made(episodes=4, seeds=2, dreamer=replace(TINY, lr=0.1)))
    for checkpoint in tmp_path.glob("checkpoint-*"):
        checkpoint.rename(run_of(tmp_path).path / checkpoint.name)
    assert contents(tmp_path) == before
    collect(tmp_path, ENV, made(episodes=6))


@pytest.mark.parametrize("order, episodes, size, ends", [(0, 7, 3, [3, 6, 7]), (4, 9, 3, [6, 9]), (5, 5, 2, [])])
def test_rounds_end_at_multiples(order: int, episodes: int, size: int, ends: list[int]) -> None:
    found = list(rounds(order, episodes, size))
    assert [one.stop for one in found] == ends
    assert [k for one in found for k in one] == list(range(order, episodes))


def test_diverged_learning_stops_with_the_loss_and_the_last_checkpoint(tmp_path: Path) -> None:
    wild = dreamer.Config(**{**vars(TINY), "lr": 1e30})
    with pytest.raises(UserError, match=r"is not finite by episode \d+, last good checkpoint: episode \d+"):
        collect(tmp_path, ENV, made(episodes=20, dreamer=wild))


def test_a_collector_that_kept_nothing_is_described_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut within its first round and begun again with other settings, as the program advises."""
    monkeypatch.setattr(Learner, "resume", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path, ENV, made(episodes=4, dreamer=replace(TINY, updates=77)))
    monkeypatch.undo()
    shutil.rmtree(run_of(tmp_path).path)
    collect(tmp_path, ENV, made(episodes=4))
    assert "random; 2 updates of" in Store(tmp_path / "raw").meta(ENV, "dreamer")["collected"]


def test_a_run_without_its_settings_is_not_continued(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(episodes=4))
    (run_of(tmp_path).path / "config.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds a run without its config.json"):
        collect(tmp_path, ENV, made(episodes=6, dreamer=replace(TINY, lr=0.1)))
    assert contents(tmp_path) == before


def test_policies_of_a_history_that_was_given_up_are_removed(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(episodes=26))
    (run_of(tmp_path).path / "policy-best.safetensors").write_bytes(b"a user's copy")
    shutil.rmtree(tmp_path / "raw" / ENV / "dreamer" / "0")
    assert list(kept_policies(run_of(tmp_path))) == [26]
    collect(tmp_path, ENV, made(episodes=4))
    assert not kept_policies(run_of(tmp_path))
    assert (run_of(tmp_path).path / "policy-best.safetensors").exists()


def test_what_a_user_set_aside_stays(tmp_path: Path) -> None:
    collect(tmp_path, ENV, made(policy="random", episodes=4))
    source = tmp_path / "raw" / ENV / "random"
    (source / "0").rename(source / "0.first")
    before = {path: path.read_bytes() for path in (source / "0.first").iterdir()}
    collect(tmp_path, ENV, made(policy="random", episodes=2))
    assert before and {path: path.read_bytes() for path in (source / "0.first").iterdir()} == before


def test_a_collector_of_a_version_that_knew_fewer_settings_goes_on(tmp_path: Path) -> None:
    collect(tmp_path / "whole", ENV, made(episodes=6))
    collect(tmp_path / "parts", ENV, made(episodes=4))
    path = run_of(tmp_path / "parts").path / "config.json"
    saved = files.read_json(path)
    del saved["settings"]["collect"]["threads"], saved["settings"]["collect"]["dreamer"]["products"]
    files.write_json(path, saved)
    collect(tmp_path / "parts", ENV, made(episodes=6))
    wanted, found = (contents(tmp_path / name) for name in ("whole", "parts"))
    assert {key: x for key, x in found.items() if "config" not in key} == {
        key: x for key, x in wanted.items() if "config" not in key
    }
    for damaged in (None, [], {"collect": None}, {"collect": {**saved["settings"]["collect"], "dreamer": None}}):
        files.write_json(path, {**saved, "settings": damaged})
        with pytest.raises(UserError, match="was begun with other settings"):
            collect(tmp_path / "parts", ENV, made(episodes=8))
