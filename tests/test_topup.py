"""Laws of the top-up: it fills a quota from kept policies, in the same way when it is cut, and stops no other seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from test_collect_learning import ENV, TINY, contents, made, run_of
from test_slicing import row

from lawm_data import envs, slicing, topup
from lawm_data.collect import collect
from lawm_data.errors import UserError
from lawm_data.learner import build, load_kept, on_arrays
from lawm_data.nets.blocks import Noise
from lawm_data.slicing import Rule, Rules
from lawm_data.store import Row, Store

ANY = Rule(min_return=-1.0, max_return=1000.0)
NONE = Rule(min_return=2000.0, max_return=3000.0)


def split(quota: int, rule: Rule = ANY) -> slicing.Config:
    return slicing.Config(quota=quota, rules=Rules(medium=rule))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("history")
    collect(root, ENV, made(episodes=50))
    return root


def copied(history: Path, root: Path) -> Path:
    for path in history.rglob("*"):
        if path.is_file():
            (root / path.relative_to(history)).parent.mkdir(parents=True, exist_ok=True)
            (root / path.relative_to(history)).write_bytes(path.read_bytes())
    return root


def test_a_quota_is_filled_and_stays_filled(history: Path, tmp_path: Path) -> None:
    root = copied(history, tmp_path)
    topup.top_up(root, ENV, "medium", split(57))
    rows = Store(root / "raw").rows(ENV)
    extra = [row for row in rows if row.source == "topup"]
    assert len(extra) == 8, "seven are missing, rounds are of two"
    before = contents(root)
    topup.top_up(root, ENV, "medium", split(57))
    assert contents(root) == before
    cut = slicing.cut(rows, ENV, split(57))
    assert len(cut["medium"].rows) + len(cut["medium"].validation_rows) >= 57
    assert not any(row.source == "topup" for row in cut["medium-replay"].rows)


def test_it_fills_the_share_that_the_split_gives(history: Path, tmp_path: Path) -> None:
    """Another source's episodes take their share of the quota, of which no rollout is theirs; whole imports none."""
    root = copied(history, tmp_path)
    store = Store(root / "raw")
    others = [replace(episode, source="other") for episode in store.read(store.rows(ENV)[:20])]
    others = [replace(episode, reward=episode.reward + np.float32(0.01)) for episode in others]
    store.create(ENV, "other", store.meta(ENV, "dreamer") | {"collected": "made for a test"}, others)
    explored = [replace(one, source="explored", reward=one.reward + np.float32(0.01)) for one in others]
    store.create(ENV, "explored", store.meta(ENV, "other") | {"slice": "plan2explore"}, explored)
    topup.top_up(root, ENV, "medium", split(114))
    rows = store.rows(ENV)
    assert sum(row.source == "topup" for row in rows) == 8, "57 is its half: seven are missing, rounds are of two"
    assert slicing.cut(rows, ENV, split(114))["medium"].found == 57 + 20


def test_an_interruption_leaves_no_trace(history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = (copied(history, tmp_path / name) for name in ("whole", "cut"))
    topup.top_up(whole, ENV, "medium", split(60))
    commits = iter(range(100))
    original = Store.commit

    def interrupted(*arguments: object) -> None:
        if next(commits) == 2:
            raise KeyboardInterrupt
        original(*arguments)

    monkeypatch.setattr(Store, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        topup.top_up(cut, ENV, "medium", split(60))
    monkeypatch.undo()
    topup.top_up(cut, ENV, "medium", split(60))
    assert contents(cut) == contents(whole)


def test_kept_policies_take_turns_round_by_round_also_when_cut(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = sorted(path.name for path in run_of(history).path.glob("policy-*"))
    asked: list[str] = []
    load = topup.load_kept

    def noted(path: Path, *rest: object) -> object:
        asked.append(path.name)
        return load(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(topup, "load_kept", noted)
    root = copied(history, tmp_path)
    for quota in (51, 57):  # the second goes on behind the first round's two
        topup.top_up(root, ENV, "medium", split(quota))
    assert asked == [kept[0], kept[1], kept[0], kept[1]]


def test_a_policy_is_judged_by_the_returns_since_the_one_before_it() -> None:
    rows = [row(order, float(order)) for order in range(50)]
    kept = {order: Path(f"policy-{order:06d}") for order in (25, 50)}
    for order, mean in ((25, 12.0), (50, 37.0)):
        assert topup._policies(kept, rows, Rule(mean, mean), "") == [kept[order]]


def test_a_policy_of_more_episodes_than_the_history_has_is_not_rolled_out() -> None:
    rows = [row(order, 100.0) for order in range(30)]
    kept = {order: Path(f"policy-{order:06d}") for order in (25, 50)}
    assert topup._policies(kept, rows, Rule(90.0, 110.0), "") == [kept[25]]


def test_what_counts_is_what_fits_within_tries_from_where_it_goes_on(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of collector 3, behind 100 rollouts that were there; each round has noise of its own."""
    root, rolled, noises = copied(history, tmp_path), [], []
    rows = [replace(row, seed=3) for row in Store(root / "raw").rows(ENV)]
    run_of(root).path.rename(run_of(root).path.with_name(f"collect-{ENV}-dreamer-s3"))

    def record(*given: Any) -> list[Any]:
        rolled.extend(given[-1])
        return [SimpleNamespace(episode_return=2500.0 if order % 2 else 0.0) for order in given[-1]]

    monkeypatch.setattr(topup, "record", record)
    monkeypatch.setattr(topup, "Noise", lambda seeds, stream, step: noises.append((seeds, stream)))
    monkeypatch.setattr(topup, "_policies", lambda *_: [Path("kept")])
    monkeypatch.setattr(topup, "load_kept", lambda *_: None)
    monkeypatch.setattr(Store, "resume", lambda *_: 100)
    monkeypatch.setattr(Store, "commit", lambda *_: None)
    for rule, rounds in ((ANY, 3), (Rule(min_return=3000.0), 6)):
        rolled.clear(), noises.clear()
        said = topup._fill(root, rows, rule, 50, 53, "")
        assert rolled == list(range(100, 100 + 2 * rounds)) and ("3 still missing" in said) == (rounds == 6)
        assert noises == [([3], f"top-up/{order}") for order in rolled[::2]]


def test_a_recording_that_is_there_twice_takes_no_share(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, asked = copied(history, tmp_path), []
    store = Store(root / "raw")
    again = [replace(episode, source="other") for episode in store.read(store.rows(ENV)[:20])]
    store.create(ENV, "other", store.meta(ENV, "dreamer") | {"collected": "made for a test"}, again)
    monkeypatch.setattr(topup, "_fill", lambda *given: asked.append(given[3:5]) or "")
    topup.top_up(root, ENV, "medium", split(57))
    assert asked == [(50, 57)]


def test_what_split_would_leave_out_fills_no_share(history: Path, tmp_path: Path) -> None:
    root = copied(history, tmp_path)
    store = Store(root / "raw")
    short = [
        replace(
            one, source="dreamer2", observation=one.observation[:11], action=one.action[:10], reward=one.reward[:10]
        )
        for one in store.read(store.rows(ENV)[:20])
        if one.action is not None
    ]
    store.create(ENV, "dreamer2", store.meta(ENV, "dreamer") | {"collected": "made for a test"}, short)
    settings = replace(split(57), min_steps=20)
    topup.top_up(root, ENV, "medium", settings)
    assert slicing.cut(store.rows(ENV), ENV, settings)["medium"].found == 57


def test_a_slice_that_takes_no_rollouts_is_refused(history: Path, tmp_path: Path) -> None:
    root = copied(history, tmp_path)
    before = contents(root)
    with pytest.raises(UserError, match="history: trailing"):
        topup.top_up(root, ENV, "medium", split(60, replace(ANY, history="trailing")))
    assert contents(root) == before
    store = Store(root / "raw")
    whole = [replace(episode, source="other") for episode in store.read(store.rows(ENV)[:20])]
    store.create(ENV, "other", store.meta(ENV, "dreamer") | {"slice": "medium"}, whole)
    with pytest.raises(UserError, match="imported whole"):
        topup.top_up(root, ENV, "medium", split(60))


def test_a_kept_policy_acts_as_in_training_by_samples(history: Path) -> None:
    path = next(run_of(history).path.glob("policy-*"))
    spec = envs.spec(ENV, 50)
    observation, first = np.zeros((1, spec.observation_size), np.float32), np.ones(1, bool)
    one, again, other = (load_kept(path, spec, TINY, Noise([0], "top-up", k))(observation, first) for k in (0, 0, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_a_kept_policy_is_the_one_that_was_kept(history: Path) -> None:
    path = next(run_of(history).path.glob("policy-*"))
    spec = envs.spec(ENV, 50)
    agent = build(spec, TINY, 1)  # other weights, all of which that act are replaced
    kept = {name.removeprefix("agent."): x for name, x in safetensors.torch.load_file(path).items()}
    agent.load_state_dict(kept, strict=False)
    observation, first = np.ones((1, spec.observation_size), np.float32), np.ones(1, bool)
    expected = on_arrays(agent.policy(Noise([0], "top-up", 0)), "cpu")(observation, first)
    assert np.array_equal(load_kept(path, spec, TINY, Noise([0], "top-up", 0))(observation, first), expected)


def test_a_collector_without_such_a_policy_stops_no_other(
    history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied(history, tmp_path)
    rows = Store(root / "raw").rows(ENV, "dreamer")
    two = [replace(row, seed=seed, crc32=row.crc32 + seed) for seed in (0, 1) for row in rows]
    monkeypatch.setattr(topup.Store, "rows", lambda self, env, source=None: two)

    def fill(root: Path, own: list[Row], *_: object) -> str:
        if own[0].seed == 0:
            raise UserError("none of 2 kept policies")
        return "filled"

    monkeypatch.setattr(topup, "_fill", fill)
    with pytest.raises(UserError, match="none of 2 kept policies"):
        topup.top_up(root, ENV, "medium", split(60))
    assert "seed 1: filled" in capsys.readouterr().out


def test_what_cannot_be_filled_is_said(history: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = copied(history, tmp_path)
    with pytest.raises(UserError, match=r"no episode with a return >= 2000 and <= 3000, so no share"):
        topup.top_up(root, ENV, "medium", split(60, NONE))
    best = max(row.episode_return for row in Store(root / "raw").rows(ENV))
    with pytest.raises(UserError, match=r"none of 2 kept policies had a mean return >= "):
        topup.top_up(root, ENV, "medium", split(60, Rule(min_return=best, max_return=1000.0)))
    with pytest.raises(UserError, match="no history of dreamer in walker-walk"):
        topup.top_up(root, "walker-walk", "medium", split(60))
    kept = next(run_of(root).path.glob("policy-*"))
    tensors = safetensors.torch.load_file(kept)
    safetensors.torch.save_file({key: x for key, x in tensors.items() if "actor" not in key}, kept)
    with pytest.raises(UserError, match=r"policy-0000\d\d.safetensors: not a kept policy of this collector"):
        topup.top_up(root, ENV, "medium", split(60))
    kept.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"policy-0000\d\d.safetensors: not a kept policy of this collector"):
        topup.top_up(root, ENV, "medium", split(60))
