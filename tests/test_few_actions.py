"""Laws of recordings that came without actions, from the file of each format to a trained policy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from foreign import laom_group, minari_episode, write_laom, write_minari
from given import run, succeed
from helpers import random_episode
from test_importers import CUSTOM, EPISODES, Arrays, check_same, d4rl_arrays, imported, write, write_aime
from test_sources import shortened
from test_train import SETTINGS, job

from lawm_data import files
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import Manifest
from lawm_data.runs import Run
from lawm_data.store import Store
from lawm_train.data import Labels
from lawm_train.job import load_data
from lawm_train.stream import open_dataset

SIX = EPISODES[:6]
Written = Callable[[Path], Path]
FORMATS: dict[str, tuple[Written, str]] = {
    "aime": (lambda path: write_aime(path / "set", SIX), "pre_action"),
    "minari": (lambda path: write_minari(path / "set", [minari_episode(one) for one in SIX]), "actions"),
    "laom": (lambda path: write_laom(path / "set.hdf5", [laom_group(one) for one in SIX]), "actions"),
}


def group_of(path: Path, number: int) -> tuple[Path, str]:
    """File and group of an episode, as `FORMATS` wrote it."""
    if path.suffix:
        return path, str(number)
    if (path / "data").is_dir():
        return path / "data" / "main_data.hdf5", f"episode_{number}"
    return path / f"{number}.hdf5", "/"


def recorded(format_name: str) -> list[Episode]:
    """What an import of all actions gives."""
    return [shortened(one) for one in SIX] if format_name == "laom" else SIX


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("absent", [(0, 1), (4, 5)])
def test_an_episode_without_actions_is_that_episode_stripped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], format_name: str, absent: tuple[int, int]
) -> None:
    """Absent in two, the first or the last; unknown (NaN) in one, and in one in its fourth row alone."""
    make, key = FORMATS[format_name]
    path = make(tmp_path)
    for number in (*absent, 2, 3):
        place, group = group_of(path, number)
        with h5py.File(place, "a") as file:
            actions = file[group][key][...].astype(np.float32)
            del file[group][key]
            if number not in absent:
                actions[slice(None) if number == 2 else 4] = np.nan
                file[group][key] = actions
    found = imported(tmp_path / "raw", format_name, path)
    columns = slice(None, None, -1) if format_name != "laom" else slice(None)
    stripped = [one.stripped() if k in (*absent, 2, 3) else one for k, one in enumerate(recorded(format_name))]
    check_same(found, stripped, columns)
    said = capsys.readouterr()
    assert "6 episodes imported, 2 of them with actions; next: " in said.out
    assert f"2 episodes have no array '{key}', so they come without actions" in said.err
    assert "1 episodes lack some of their actions (NaN)" in said.err and "3" in said.err.rpartition("the first is")[2]


def d4rl_without() -> Arrays:
    arrays = d4rl_arrays(EPISODES[6:])
    del arrays["actions"]
    return arrays


@pytest.mark.parametrize("order", [1, -1])
def test_a_d4rl_file_without_actions_beside_one_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: int
) -> None:
    parts = [("few.hdf5", d4rl_arrays(SIX), SIX)]
    parts += [("many.hdf5", d4rl_without(), [one.stripped() for one in EPISODES[6:]])]
    paths = [write(tmp_path / name, arrays) for name, arrays, _ in parts[::order]]
    check_same(imported(tmp_path / "raw", "d4rl", *paths), [one for _, _, own in parts[::order] for one in own])
    assert "6 episodes have no array 'actions', so they come without actions" in capsys.readouterr().err


def test_a_d4rl_file_with_neither_actions_nor_next_observations(tmp_path: Path) -> None:
    """One episode has actions; all lose their last step, whose end is unknown."""
    arrays = d4rl_arrays(SIX)
    arrays["actions"][SIX[0].length :] = np.nan
    del arrays["next_observations"]
    paths = [write(tmp_path / "few.hdf5", arrays)]
    others = d4rl_without()
    del others["next_observations"]
    paths.append(write(tmp_path / "many.hdf5", others))
    expected = [shortened(one) for one in EPISODES]
    check_same(imported(tmp_path / "raw", "d4rl", *paths), [expected[0], *(one.stripped() for one in expected[1:])])


@pytest.mark.parametrize("order", [1, -1])
def test_actions_of_another_size_are_refused_also_where_all_are_unknown(tmp_path: Path, order: int) -> None:
    arrays = d4rl_arrays(EPISODES[6:])
    arrays["actions"] = np.full((len(arrays["actions"]), 3), np.nan)
    one, other = write(tmp_path / "one.hdf5", d4rl_arrays(SIX)), write(tmp_path / "other.hdf5", arrays)
    with pytest.raises(UserError, match=r"'actions' has size \d, in a file before \d"):
        imported(tmp_path / "raw", "d4rl", *[one, other][::order])
    imported(tmp_path / "raw", "d4rl", one)
    with pytest.raises(UserError, match="action_size 1, the new episodes have 3"):
        imported(tmp_path / "raw", "d4rl", other)


def test_unknown_actions_of_another_size_than_the_task_s_are_refused(tmp_path: Path) -> None:
    arrays = d4rl_arrays([random_episode(0, observation_size=3)])
    arrays["actions"][:] = np.nan
    path = write(tmp_path / "nan.hdf5", arrays)
    with pytest.raises(UserError, match="action size 2, but pendulum-swingup has 1; check --env"):
        imported(tmp_path / "raw", "d4rl", path, env="pendulum-swingup")


def test_a_misnamed_array_of_actions_is_no_observation(tmp_path: Path) -> None:
    with h5py.File(write_aime(tmp_path / "set", SIX) / "0.hdf5", "a") as file:
        file.move("pre_action", "action")
    with pytest.raises(UserError, match="'action' is no observation; AIME calls its actions 'pre_action'"):
        imported(tmp_path / "raw", "aime", tmp_path / "set")


def import_some(known: int, count: int) -> None:
    """Import `count` episodes into the workspace here, the actions of the first `known` alone known."""
    arrays = d4rl_arrays([random_episode(order, length=60) for order in range(count)])
    arrays["actions"][60 * known :] = np.nan
    write(Path("some.hdf5"), arrays)
    succeed(f"lawm-data import d4rl some.hdf5 --env {CUSTOM}")


def test_scarce_actions_are_not_left_out_by_lot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the quota takes a part of what there is."""
    monkeypatch.chdir(tmp_path)
    import_some(known=5, count=60)
    assert "0 for validation" in (said := run("lawm-data split --set split.quota=30").output)
    assert "5 of 30 labeled" in said
    said = run("lawm-data split --set split.quota=30 --label-frac 0.1").output
    assert "3 of 30 labeled" in said and run("lawm-data verify").exit_code == 0


def test_a_recording_that_is_there_with_and_without_actions_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With: else an episode could be held out and trained on, or labeled and unlabeled."""
    monkeypatch.chdir(tmp_path)
    episodes = [random_episode(order) for order in range(40)]
    few, many = d4rl_arrays(episodes[:20]), d4rl_arrays(episodes)
    del many["actions"]
    for name, arrays in (("few.hdf5", few), ("many.hdf5", many)):
        write(Path(name), arrays)
        succeed(f"lawm-data import d4rl {name} --env {CUSTOM}")
    said = run("lawm-data split").output
    assert "20 of 60 episodes are recordings that are there under another name; each counts once" in said
    assert "1 for validation" in said and "19 of 39 labeled" in said


def test_the_size_of_actions_is_that_of_what_was_imported_before(tmp_path: Path) -> None:
    few, many = write(tmp_path / "few.hdf5", d4rl_arrays(SIX)), write(tmp_path / "many.hdf5", d4rl_without())
    with pytest.raises(UserError, match="many.hdf5: no trajectory has actions, .* or import them before"):
        imported(tmp_path / "raw", "d4rl", many)
    imported(tmp_path / "raw", "d4rl", few)
    imported(tmp_path / "raw", "d4rl", many)
    store = Store(tmp_path / "raw")
    assert {store.meta(CUSTOM, source)["action_size"] for source in store.sources(CUSTOM)} == {1}
    assert sum(row.has_action for row in store.rows(CUSTOM)) == 6 and len(store.rows(CUSTOM)) == 12


def test_few_actions_from_the_recording_to_a_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No draw of labels anywhere: what has actions is labeled, but for the share that diagnostics need."""
    monkeypatch.chdir(tmp_path)
    episodes = [random_episode(order) for order in range(40)]
    few, many = d4rl_arrays(episodes[:20]), d4rl_arrays(episodes[20:])
    del many["actions"]
    write(Path("few.hdf5"), few)
    write(Path("many.hdf5"), many)
    succeed(f"lawm-data import d4rl few.hdf5 many.hdf5 --env {CUSTOM}")
    said = run("lawm-data split").output
    assert "1 for validation" in said and "19 of 39 labeled" in said, "5% of the 20 that have actions"
    assert "--label-frac" not in said, "actions are few already"
    dataset = Path("lawm/dataset/custom-count")
    entry = Manifest.load(dataset).slices["medium-replay"]
    assert "withheld" not in entry.splits and "most come without their actions" in (dataset / "README.md").read_text()
    words = " ".join(f"--set {setting}" for setting in SETTINGS)
    answer = run(f"lawm-train --hub-dataset {dataset} {words}")
    assert answer.exit_code == 0 and "method lawm, 19 of 39 episodes labeled" in answer.output, answer.output
    (path,) = Path("lawm/runs").iterdir()
    assert Run(path).finished
    (refused,) = run(f"lawm-train --hub-dataset {dataset} {words} --oracle").stderr.splitlines()
    assert "no actions were withheld" in refused and list(path.parent.iterdir()) == [path]
    told = run(f"lawm-train diagnose {path} --hub-dataset {dataset}").output
    assert "no actions were withheld" in told and files.read_json(path / "diagnostics.json")["rungs"]


def test_there_is_no_oracle_of_what_was_never_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some actions were withheld, others never there; the draws of labels take the former alone."""
    monkeypatch.chdir(tmp_path)
    import_some(known=20, count=40)
    succeed("lawm-data split --label-frac 0.1")
    succeed("lawm-data verify lawm/dataset/custom-count")
    words = f"--hub-dataset lawm/dataset/custom-count {' '.join(f'--set {setting}' for setting in SETTINGS)}"
    (refused,) = run(f"lawm-train {words} --oracle").stderr.splitlines()
    assert "20 of 39 episodes in slice medium-replay were recorded without actions" in refused
    (refused,) = run(f"lawm-train {words} --label-frac 0.6").stderr.splitlines()
    assert "23 of 39 episodes should be labeled, but 19 have actions" in refused
    for method in ("lawm", "idm-td3bc"):
        assert "10 of 39 episodes labeled" in run(f"lawm-train {words} --method {method} --label-frac 0.25").output


@pytest.mark.parametrize("method", ["clap", "bc"])
def test_labels_of_each_seed_s_own_change_nothing_where_none_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """As `grid` asks for them: a pool that moves has no unlabeled episodes for a method of the labeled either."""
    monkeypatch.chdir(tmp_path)
    import_some(known=20, count=40)
    monkeypatch.setattr("lawm_data.splitting.MEGABYTE", 100)  # many shards
    succeed("lawm-data split")
    opened = open_dataset("lawm/dataset/custom-count")
    plain, own = (job(opened, method, [0, 1], labels=labels) for labels in (None, Labels(seed="own")))
    assert own.splits == plain.splits and own.gigabytes == plain.gigabytes
    for part in (2.0, 0.7):
        settings = [f"train.pool_gb={part * plain.gigabytes}"]
        with_, without = (job(opened, method, [0, 1], settings, labels) for labels in (Labels(seed="own"), None))
        read, expected = load_data(with_), load_data(without)
        assert with_.fits == (part > 1) and read.kinds == expected.kinds == 1 and read.sizes == expected.sizes
        for ours, theirs in zip(read.statistics(), expected.statistics(), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def without_digests(lines: list[str]) -> list[str]:
    """Another version of HDF5 may write other bytes."""
    return [re.sub(r"d4rl-[0-9a-f]{8}", "d4rl-", line) for line in lines]


def test_the_recording_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code, and the commands below it."""
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parent.parent / "README.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "robot.hdf5" in block]
    exec(code, {})
    shown = re.findall(r"\$ (lawm-data \w+ .*custom:robot)\n((?:    .+\n)+)", page)
    assert len(shown) == 2
    for command, output in shown:
        said = [line.strip() for line in output.splitlines()]
        assert without_digests(run(command).output.splitlines()) == without_digests(said)
    found = list(Store(Path("lawm/raw")).read(Store(Path("lawm/raw")).rows("custom:robot")))
    assert [one.length for one in found] == [200] * 40 and not any(one.terminal for one in found)
    assert [one.action is not None for one in found] == [True] * 5 + [False] * 35
    assert Manifest.load(Path("lawm/dataset/custom-robot")).slices["medium-replay"].statistics["labeled"] == 5
