"""Laws of the import of Minari's and LAOM's files, and of the choices that `import` leaves to the user."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from foreign import Group, box, laom_group, minari_episode, write_laom, write_minari
from given import succeed
from helpers import counting_episode, random_episode
from test_importers import (
    CUSTOM,
    EPISODES,
    aime_arrays,
    check_same,
    d4rl_arrays,
    imported,
    walker_arrays,
    write,
    write_aime,
)

from lawm_data import envs, importers, table4
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import Manifest
from lawm_data.runs import Run
from lawm_data.store import Store
from lawm_train import share
from lawm_train.policy import Policy


def source_meta(raw: Path, env: str = CUSTOM) -> dict[str, Any]:
    store = Store(raw)
    (source,) = store.sources(env)
    return store.meta(env, source)


def test_minari_is_read_in_the_order_of_its_episodes(tmp_path: Path) -> None:
    folder = write_minari(tmp_path / "set", [minari_episode(episode) for episode in EPISODES])
    for path in (folder, folder / "data", folder / "data" / "main_data.hdf5"):
        found = imported(tmp_path / "raw", "minari", path)
    check_same(found, EPISODES, columns=slice(None, None, -1))  # `inner/down` before `up`, as HDF5 lists them
    assert source_meta(tmp_path / "raw")["layout"] == [["inner/down", 1], ["up", 1]]


def test_minari_flat_observations(tmp_path: Path) -> None:
    groups = [minari_episode(episode) | {"observations": episode.observation} for episode in EPISODES]
    check_same(imported(tmp_path / "raw", "minari", write_minari(tmp_path / "set", groups)), EPISODES)


def walker_parts(rows: int = 21) -> Group:
    """Every observed number is its column in the simulator's order."""
    layout = {"orientations": range(14), "height": range(14, 15), "velocity": range(15, 24)}
    return {key: np.tile(np.array(columns, np.float32), (rows, 1)) for key, columns in layout.items()}


def test_minari_names_are_mapped_to_the_layout_of_the_env(tmp_path: Path) -> None:
    steps = {"actions": np.zeros((20, 6)), "rewards": np.zeros(20), "terminations": np.zeros(20, bool)}
    parts = walker_parts() | {"pixels": np.zeros((21, 4, 4, 3), np.uint8)}
    group = {"observations": parts, "truncations": np.zeros(20, bool)} | steps
    folder = write_minari(tmp_path / "set", [group], action_space=box(-1, 1, 6))
    (episode,) = imported(tmp_path / "raw", "minari", folder, env="walker-walk")
    np.testing.assert_array_equal(episode.observation, np.tile(np.arange(24), (21, 1)))


def test_minari_actions_are_scaled_from_their_bounds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    low, high = np.array([-0.4, 0.0]), np.array([0.4, 10.0])
    episode = random_episode(0, observation_size=2)
    assert episode.action is not None
    scaled = low + (episode.action + 1) / 2 * (high - low)
    group = minari_episode(episode) | {"actions": scaled}
    folder = write_minari(tmp_path / "set", [group], action_space=box(low.tolist(), high.tolist(), 2))
    (found,) = imported(tmp_path / "raw", "minari", folder)
    np.testing.assert_allclose(found.action, episode.action, atol=1e-6)
    note = "actions scaled from [-0.4, 0.4], [0, 10], column by column, to [-1, 1]"
    assert note in capsys.readouterr().err and note in source_meta(tmp_path / "raw")["collected"]
    assert source_meta(tmp_path / "raw")["action_bounds"] == [[-0.4, 0.4], [0, 10]]


def test_a_policy_acts_in_the_units_of_its_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From recorded numbers through every command to the policy, in its run and as published, and back."""
    monkeypatch.chdir(tmp_path)
    dataset, low, high = Path("lawm/dataset/custom-count"), np.array([-0.4, 0.0]), np.array([0.4, 10.0])
    groups = [minari_episode(random_episode(k, observation_size=2)) for k in range(20)]
    recorded = [low + (group["actions"] + 1) / 2 * (high - low) for group in groups]
    scaled = [group | {"actions": actions} for group, actions in zip(groups, recorded, strict=True)]
    write_minari(Path("set"), scaled, action_space=box(low.tolist(), high.tolist(), 2))
    for command in (f"lawm-data import minari set --env {CUSTOM}", "lawm-data split"):
        succeed(command)
    assert Manifest.load(dataset).action_bounds == [(-0.4, 0.4), (0, 10)]
    succeed(f"lawm-train --hub-dataset {dataset} --method bc --set agent.bc.updates=2 --set train.window=8")
    (path,) = Path("lawm/runs").iterdir()
    share.write(Run(path), Path("published"), "org/policy")
    assert "policy.unscale_action(action)" in Path("published/README.md").read_text()
    store = Store(Path("lawm/raw"))
    for place in (path, Path("published")):
        policy = Policy.from_pretrained(place)
        for episode, actions in zip(store.read(store.rows(CUSTOM)), recorded, strict=True):
            assert episode.action is not None
            np.testing.assert_allclose(policy.unscale_action(episode.action), actions, atol=1e-5)
    for end, bound in ((-1, low), (1, high)):
        assert (policy.unscale_action(np.full(2, end, np.float32)) == bound).all()
        assert (policy.unscale_action([[end, end]]) == [bound]).all()
    with pytest.raises(ValueError, match=r"action has shape \(2, 1\), expected \(\.\.\., 2\)"):
        policy.unscale_action(np.zeros((2, 1)))
    del policy.description["about"]["action_bounds"]
    with pytest.raises(ValueError, match="does not say what -1 and 1 were"):
        policy.unscale_action(np.zeros(2))


def test_actions_of_other_bounds_are_of_another_env(tmp_path: Path) -> None:
    """Else one action would be two numbers; whether they come in one import or in two."""
    halves = [minari_episode(one) | {"actions": one.action / 2} for one in EPISODES[:2] if one.action is not None]
    size = halves[0]["actions"].shape[1]
    one, two = (
        write_minari(tmp_path / f"{most}", [half], action_space=box(-most, most, size))
        for most, half in zip((1, 2), halves, strict=True)
    )
    with pytest.raises(UserError, match="its actions have other bounds than those of"):
        importers.run("minari", [one, two], CUSTOM, tmp_path / "raw")
    importers.run("minari", [one], CUSTOM, tmp_path / "raw")
    with pytest.raises(UserError, match="action_bounds .* the new episodes have .*--env custom:NAME"):
        importers.run("minari", [two], CUSTOM, tmp_path / "raw")
    assert len(Store(tmp_path / "raw").sources(CUSTOM)) == 1


def test_minari_authors_are_credited(tmp_path: Path) -> None:
    groups = [minari_episode(episode) for episode in EPISODES]
    folder = write_minari(tmp_path / "set", groups, author=["A. Author", "B. Author"])
    imported(tmp_path / "raw", "minari", folder)
    assert source_meta(tmp_path / "raw")["credits"] == "Minari dataset count/up-v0 by A. Author, B. Author"


def test_a_recording_of_another_task_is_refused(tmp_path: Path) -> None:
    spec = '{"id": "dm_control/walker-run-v0", "entry_point": "shimmy"}'
    folder = write_minari(tmp_path / "set", [minari_episode(EPISODES[0])], env_spec=spec)
    with pytest.raises(UserError, match="recorded in walker-run, not in walker-walk"):
        imported(tmp_path / "raw", "minari", folder, env="walker-walk")


def shortened(episode: Episode) -> Episode:
    """Without the last step, whose next state LAOM does not keep."""
    assert episode.action is not None
    observation, action, reward = episode.observation[:-1], episode.action[:-1], episode.reward[:-1]
    return replace(episode, observation=observation, action=action, reward=reward, terminal=False)


def test_laom_is_aligned_and_in_the_order_of_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_laom(tmp_path / "data.hdf5", [laom_group(episode) for episode in EPISODES])
    check_same(imported(tmp_path / "raw", "laom", path), [shortened(episode) for episode in EPISODES])
    assert f"the last step of each of {len(EPISODES)} episodes is left out" in capsys.readouterr().err


def test_laom_columns_are_mapped_from_the_alphabet_to_the_layout_of_the_env(tmp_path: Path) -> None:
    alphabetical = np.concatenate([part for _, part in sorted(walker_parts().items())], axis=1)
    group = {"states": alphabetical, "actions": np.zeros((21, 6)), "rewards": np.zeros(21)}
    path = write_laom(tmp_path / "data.hdf5", [group], "walker-walk")
    (episode,) = imported(tmp_path / "raw", "laom", path, env="walker-walk")
    np.testing.assert_array_equal(episode.observation, np.tile(np.arange(24), (21, 1)))


def test_laom_actions_are_those_that_were_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group = laom_group(EPISODES[0])
    path = write_laom(tmp_path / "data.hdf5", [group | {"actions": 3 * group["actions"] - 1.5}])
    (found,) = imported(tmp_path / "raw", "laom", path)
    np.testing.assert_array_equal(found.action, np.clip(3 * group["actions"] - 1.5, -1, 1)[:-1])
    assert "numbers of actions clipped" in capsys.readouterr().err


def test_files_of_two_tasks_are_no_one_source(tmp_path: Path) -> None:
    groups = [laom_group(episode) for episode in EPISODES]
    paths = [write_laom(tmp_path / f"{task}.hdf5", groups, task) for task in ("count-up", "count-down")]
    with pytest.raises(UserError, match=r"count-down.hdf5: recorded in count-down, .*count-up.hdf5 in count-up"):
        importers.run("laom", paths, CUSTOM, tmp_path / "raw")
    folders = [
        write_minari(tmp_path / task, [minari_episode(episode)], env_spec=f"dm_control/{task}-v0")
        for task, episode in zip(("walker-walk", "walker-run"), EPISODES, strict=False)
    ]
    with pytest.raises(UserError, match="recorded in walker-run"):
        importers.run("minari", folders, CUSTOM, tmp_path / "raw")


def test_a_recording_at_every_control_step_keeps_its_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = 1000
    group = {"states": np.zeros((rows, 24)), "actions": np.zeros((rows, 6)), "rewards": np.zeros(rows)}
    path = write_laom(tmp_path / "data.hdf5", [group], "walker-walk")
    with pytest.raises(UserError, match=r"999 steps, but .* has 500 at action repeat 2; .*--repeat"):
        importers.run("laom", [path], "walker-walk", tmp_path / "raw")
    importers.run("laom", [path], "walker-walk", tmp_path / "raw", repeat=1)
    assert "another --repeat" not in capsys.readouterr().err
    half = write_laom(tmp_path / "half.hdf5", [{key: x[: rows // 2] for key, x in group.items()}], "walker-walk")
    importers.run("laom", [half], "walker-walk", tmp_path / "again", repeat=1)
    said = "the longest episode has 499 of the 1000 steps of walker-walk at action repeat 1; was it recorded"
    assert said in capsys.readouterr().err
    assert source_meta(tmp_path / "raw", "walker-walk")["repeat"] == 1
    assert envs.spec("walker-walk", 1).episode_length == 1000


def test_aime_reset_in_mid_episode_begins_another_trajectory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = [aime_arrays(episode) for episode in EPISODES[:2]]
    joined = {key: np.concatenate([one[key] for one in arrays]) for key in arrays[0]}
    found = imported(tmp_path / "raw", "aime", write(tmp_path / "0.hdf5", joined))
    check_same(found, EPISODES[:2], columns=slice(None, None, -1))
    assert f"taken as 2 episodes: rows 0..{EPISODES[0].length}," in capsys.readouterr().err


def test_aime_reset_in_the_last_row_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = (aime_arrays(episode) for episode in EPISODES[:2])
    joined = {key: np.concatenate([one[key], other[key][:1]]) for key in one}
    found = imported(tmp_path / "raw", "aime", write(tmp_path / "0.hdf5", joined))
    check_same(found, EPISODES[:1], columns=slice(None, None, -1))
    assert "0.hdf5: left out 1 rows, a reset without a step" in capsys.readouterr().err


@pytest.mark.parametrize("late", [0, 1])
def test_an_array_that_some_episodes_alone_observe_is_never_dropped(tmp_path: Path, late: int) -> None:
    """In whichever file it is missing, the first or the last."""
    folder = write_aime(tmp_path / "set", EPISODES[:2])
    with h5py.File(folder / f"{1 - late}.hdf5", "a") as file:
        file["extra"] = np.zeros((len(file["up"]), 1))
    with pytest.raises(UserError, match=r"'extra'"):
        imported(tmp_path / "raw", "aime", folder)
    groups = [minari_episode(episode) for episode in EPISODES[:2]]
    groups[1 - late]["observations"]["extra"] = np.zeros((EPISODES[1 - late].length + 1, 1))
    with pytest.raises(UserError, match=r"'extra'"):
        imported(tmp_path / "raw", "minari", write_minari(tmp_path / "one", groups))
    parts = [write_minari(tmp_path / f"part{k}", [group]) for k, group in enumerate(groups)]
    with pytest.raises(UserError, match=r"'extra'"):
        imported(tmp_path / "raw", "minari", *parts)


def test_what_a_task_does_not_observe_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_aime(tmp_path / "set", EPISODES[:1])
    with h5py.File(folder / "0.hdf5", "a") as file:
        length = len(file["up"])
        del file["up"], file["down"]
        parts = {"orientation": 2, "velocity": 1, "extra": 1}
        for name, size in parts.items():
            file[name] = np.zeros((length, size))
    imported(tmp_path / "raw", "aime", folder, env="pendulum-swingup")
    assert "left out, as pendulum-swingup does not observe it: extra" in capsys.readouterr().err


def test_only_counts_the_episodes_of_a_file_that_holds_several(tmp_path: Path) -> None:
    for k in (0, 1):
        arrays = [aime_arrays(episode) for episode in EPISODES[2 * k : 2 * k + 2]]
        write(tmp_path / "set" / f"{k}.hdf5", {key: np.concatenate([one[key] for one in arrays]) for key in arrays[0]})
    importers.run("aime", [tmp_path / "set"], CUSTOM, tmp_path / "raw", only="2:")
    store = Store(tmp_path / "raw")
    check_same(list(store.read(store.rows(CUSTOM))), EPISODES[2:4], columns=slice(None, None, -1))


def test_a_forgotten_part_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path / "raw", "aime", write_aime(tmp_path / "buffer", EPISODES[1:]))
    assert "1 of the files 0..11 are not there, the first is 0" in capsys.readouterr().err


@pytest.mark.parametrize("format_name", ["aime", "d4rl", "minari", "laom"])
def test_episodes_that_cannot_be_used_are_left_out_where_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format_name: str
) -> None:
    """One has a reward that is NaN, one an observation; the first of all would need another order else."""
    spoilt = [replace(one, reward=one.reward.copy(), observation=one.observation.copy()) for one in EPISODES]
    spoilt[0].reward[3], spoilt[5].observation[2] = np.nan, np.nan
    path = tmp_path / "set.hdf5"
    if format_name == "aime":
        path = write_aime(tmp_path / "set", spoilt)
    elif format_name == "d4rl":
        write(path, d4rl_arrays(spoilt))
    elif format_name == "minari":
        path = write_minari(tmp_path / "set", [minari_episode(one) for one in spoilt])
    else:
        write_laom(path, [laom_group(one) for one in spoilt])
    with pytest.raises(UserError, match="reward row"):
        importers.run(format_name, [path], CUSTOM, tmp_path / "raw")
    importers.run(format_name, [path], CUSTOM, tmp_path / "raw", skip_bad=True)
    store = Store(tmp_path / "raw")
    found = list(store.read(store.rows(CUSTOM)))
    assert [one.order for one in found] == list(range(len(EPISODES) - 2))
    kept = [one for k, one in enumerate(EPISODES) if k not in (0, 5)]
    lost = int(format_name == "laom")  # its last step has no next observation
    for one, other in zip(found, kept, strict=True):
        np.testing.assert_array_equal(one.reward, other.reward[: other.length - lost])
    said = capsys.readouterr().err
    assert "left out 2 episodes that cannot be used, the first: " in said and "reward row" in said
    assert "without those that cannot be used" in source_meta(tmp_path / "raw")["collected"]
    with pytest.raises(UserError, match="imported before as --skip-bad, now as every episode"):
        importers.run(format_name, [path], CUSTOM, tmp_path / "raw")


def test_what_a_format_itself_refuses_of_an_episode_is_left_out_too(tmp_path: Path) -> None:
    wide = minari_episode(EPISODES[2]) | {"actions": np.full((20, 1), 3.0)}
    minari = write_minari(tmp_path / "minari", [minari_episode(EPISODES[0]), wide])
    laom = write_laom(
        tmp_path / "set.hdf5", [laom_group(EPISODES[0]), laom_group(EPISODES[2]) | {"states": np.zeros((20, 3))}]
    )
    aime = write_aime(tmp_path / "aime", EPISODES[:1])
    write(aime / "1.hdf5", aime_arrays(EPISODES[2]) | {"is_first": np.full(21, np.nan)})
    (aime / "2.hdf5").write_bytes((aime / "0.hdf5").read_bytes()[:900])
    arrays = d4rl_arrays([EPISODES[0], EPISODES[2]])
    arrays["next_observations"][25] = np.nan
    d4rl = write(tmp_path / "flat.hdf5", arrays)
    says = {"minari": "outside its bounds", "laom": "'states' has size 3", "aime": "'is_first' is nan"}
    for name, path in {"minari": minari, "laom": laom, "aime": aime, "d4rl": d4rl}.items():
        with pytest.raises(UserError, match=says.get(name, "next_observations row 25 is not finite")):
            importers.run(name, [path], CUSTOM, tmp_path / name / "raw")
        importers.run(name, [path], CUSTOM, tmp_path / name / "raw", skip_bad=True)
        assert len(Store(tmp_path / name / "raw").rows(CUSTOM)) == 1


def test_where_no_episode_can_be_used_nothing_is_imported(tmp_path: Path) -> None:
    path = write(tmp_path / "set.hdf5", d4rl_arrays(EPISODES) | {"rewards": np.full(227, np.nan)})
    with pytest.raises(UserError, match=r"none of 12 episodes can be used: .*set.hdf5, rows 0.* reward row 0"):
        importers.run("d4rl", [path], CUSTOM, tmp_path / "raw", skip_bad=True)
    assert not Store(tmp_path / "raw").envs()


@pytest.mark.parametrize(
    ("only", "chosen"), [("5:", EPISODES[5:]), (":5", EPISODES[:5]), ("2:4", EPISODES[2:4]), (f":{9**30}", EPISODES)]
)
def test_only_imports_a_part_which_holds_for_good(tmp_path: Path, only: str, chosen: list[Episode]) -> None:
    folder = write_aime(tmp_path / "buffer", EPISODES)
    importers.run("aime", [folder], CUSTOM, tmp_path / "raw", only=only)
    store = Store(tmp_path / "raw")
    found = list(store.read(store.rows(CUSTOM)))
    check_same(found, [replace(episode, order=k) for k, episode in enumerate(chosen)], columns=slice(None, None, -1))
    assert source_meta(tmp_path / "raw")["collected"].endswith(f"; of its episodes {only}")
    with pytest.raises(UserError, match=f"before as --only {only}, now as --only :; delete"):
        importers.run("aime", [folder], CUSTOM, tmp_path / "raw")


def test_a_surplus_over_table_4_shows_which_episodes_to_leave_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table4, "EPISODES", 3)
    for order in range(5):
        arrays = walker_arrays()
        arrays["reward"][1:] = order
        write(tmp_path / "buffer" / f"{order}.hdf5", arrays)
    importers.run("aime", [tmp_path / "buffer"], "walker-walk", tmp_path / "raw", "plan2explore")
    table = {line[:22].strip(): line[22:].split()[0] for line in capsys.readouterr().out.splitlines()[-4:]}
    # 20 steps of reward `order` each
    assert table == {"the paper's Table 4": "173.4", "these 5": "40.0", "--only 2:": "60.0", "--only :3": "20.0"}


@pytest.mark.parametrize(
    ("folder", "said"),
    [("walker-plan2explore-buffer", "plan2explore buffers of AIME-NoB"), ("mine", "if these are theirs")],
)
def test_files_in_the_layout_of_plan2explore_are_credited(tmp_path: Path, folder: str, said: str) -> None:
    path = write_aime(tmp_path / folder, EPISODES)
    importers.run("aime", [path], CUSTOM, tmp_path / "raw", credit="C. Author, MIT")
    credits = source_meta(tmp_path / "raw")["credits"]
    assert said in credits and "CC BY 4.0" in credits and credits.endswith("; C. Author, MIT")
    with pytest.raises(UserError, match="now as D. Author"):
        importers.run("aime", [path], CUSTOM, tmp_path / "raw", credit="D. Author")


def test_a_credit_is_kept_for_a_format_that_knows_none(tmp_path: Path) -> None:
    path = write_laom(tmp_path / "data.hdf5", [laom_group(counting_episode(0))])
    importers.run("laom", [path], CUSTOM, tmp_path / "raw", credit="C. Author, MIT")
    assert source_meta(tmp_path / "raw")["credits"] == "C. Author, MIT"


def test_minari_episodes_that_observe_otherwise_than_the_first_are_refused(tmp_path: Path) -> None:
    by_name = [minari_episode(episode) for episode in EPISODES]
    flat = [group | {"observations": one.observation} for group, one in zip(by_name, EPISODES, strict=True)]
    named_alike = [group | {"observations": {"observation": group["observations"]["up"]}} for group in by_name]
    for k, (one, other) in enumerate(((by_name, flat), (flat, by_name))):
        mixed = write_minari(tmp_path / f"mixed{k}", [*one[:3], *other[3:]])
        with pytest.raises(UserError, match="episode_3: .*(size|found|observes)"):
            imported(tmp_path / "raw", "minari", mixed)
        sets = [write_minari(tmp_path / f"{name}{k}", groups) for name, groups in (("a", one), ("b", other[:5]))]
        with pytest.raises(UserError, match="episode_0: .*(size|found|observes)"):
            imported(tmp_path / "raw", "minari", *sets)
    more = [
        *named_alike[:3],
        *(
            {**one, "observations": {**one["observations"], "x": one["observations"]["observation"]}}
            for one in named_alike[3:]
        ),
    ]
    with pytest.raises(UserError, match="'x' is observed here, but not in the first episode"):
        imported(tmp_path / "raw", "minari", write_minari(tmp_path / "more", more))


def test_minari_bounds_that_were_mended_are_no_second_import_of_the_same(tmp_path: Path) -> None:
    groups = [minari_episode(episode) for episode in EPISODES]
    imported(tmp_path / "raw", "minari", write_minari(tmp_path / "set", groups, action_space=box(-2, 2)))
    mended = write_minari(tmp_path / "set", groups, action_space=box(-1, 1))
    with pytest.raises(
        UserError, match=r"imported before as actions within \[\[-2.0, 2.0\]\], now .*delete the folder"
    ):
        imported(tmp_path / "raw", "minari", mended)


def test_an_infinite_action_of_laom_is_refused_not_clipped(tmp_path: Path) -> None:
    groups = [laom_group(episode) for episode in EPISODES]
    groups[2]["actions"] = np.where(np.arange(len(groups[2]["actions"]))[:, None] == 4, np.inf, 0).astype(np.float32)
    with pytest.raises(UserError, match="group 2: action row 4"):
        imported(tmp_path / "raw", "laom", write_laom(tmp_path / "laom.hdf5", groups))


def test_what_no_utf8_holds_is_written_with_question_marks(tmp_path: Path) -> None:
    """Names of files and terminals of another encoding; else no manifest and no card could be written of them."""
    raw = tmp_path / "raw"
    path = write_minari(tmp_path / "set", [minari_episode(one) for one in EPISODES], author=["\ud800", 3])
    importers.run("minari", [path], CUSTOM, raw, credit="M\udcfcller")
    store = Store(raw)
    (source,) = store.sources(CUSTOM)
    assert store.meta(CUSTOM, source)["credits"] == "Minari dataset count/up-v0 by ?, 3; M?ller"
    importers.run("minari", [path], CUSTOM, raw, credit="M\udcfcller")  # the same again
