"""The whole way from a raw store to a dataset folder, through the command."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from helpers import counting_episode, random_episode

from lawm_data import cli, files, manifest, shards, splitting, statistics, table4
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import NAME, Manifest
from lawm_data.store import Store
from lawm_data.windows import Pool

LENGTH = 30


def made(count: int = 80, **other: Any) -> list[Episode]:
    """Returns from 0 up, so that a cap cuts them."""
    return [random_episode(order, LENGTH, mean_reward=order / 50, **other) for order in range(count)]


def store(
    root: Path,
    episodes: list[Episode],
    slice_name: str | None = None,
    credits: str | None = None,
    repeat: int | None = 2,
) -> None:
    first = episodes[0]
    meta = {
        "layout": [["pose", first.observation.shape[1] - 1], ["height", 1]],
        "action_size": 2 if first.action is None else first.action.shape[1],
        "repeat": repeat,
        "collected": "made for a test",
        "credits": credits,
        "slice": slice_name,
    }
    Store(root / "raw").create(first.env, first.source, meta, episodes)


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["split", "--root", str(root), *arguments])


def split(root: Path, *arguments: str) -> str:
    answer = run(root, *arguments)
    assert answer.exit_code == 0, answer.output
    return answer.output


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def read(folder: Path, slice_: str, kind: str, withheld: bool = False) -> list[Episode]:
    manifest = Manifest.load(folder)
    found = []
    for name in manifest.slices[slice_].splits.get(kind, []):
        found += shards.read(folder / name, name, manifest, folder / shards.withheld_of(name) if withheld else None)
    return found


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    store(root, made(), credits="A. N. Author, CC BY 4.0")
    split(root, "--label-frac", "0.1", "--set", "split.quota=60", "--set", "split.rules.medium.max_return=20")
    return root


@pytest.fixture(scope="module")
def dataset(workspace: Path) -> Path:
    return workspace / "dataset" / "custom-made"


def test_every_episode_arrives_as_it_was(dataset: Path) -> None:
    original = {episode.episode_id: episode for episode in made()}
    for kind, withheld in (("labeled", False), ("unlabeled", True), ("validation", False)):
        for episode in read(dataset, "medium-replay", kind, withheld):
            true = original.pop(episode.episode_id)
            for name in ("observation", "action", "reward"):
                assert np.array_equal(getattr(episode, name), getattr(true, name)), (episode.episode_id, name)
    assert not original, "80 episodes: 60 in the slice, 20 for validation"


def test_time_is_kept_through_every_stage(tmp_path: Path) -> None:
    store(tmp_path, [counting_episode(order, length=20 + order % 3) for order in range(40)])
    split(tmp_path, "--label-frac", "0.5")
    for episode in read(tmp_path / "dataset" / "custom-count", "medium-replay", "unlabeled", withheld=True):
        steps = np.arange(episode.length + 1)
        assert np.array_equal(episode.observation[:, 0], episode.order * 1000 + steps)
        assert episode.action is not None
        assert np.array_equal(episode.action[:, 0], (steps[:-1] / episode.length).astype(np.float32))


def test_stripped_actions_are_nowhere_but_in_the_withheld_files(workspace: Path, dataset: Path) -> None:
    manifest = Manifest.load(dataset)
    everything = contents(dataset)
    original = {episode.episode_id: episode for episode in made()}
    for slice_ in manifest.slices:
        # a slice at a time: they overlap, and what is hidden in one may be labeled in another
        open_files = [data for name, data in everything.items() if name.split("/")[0] in (slice_, "README.md", NAME)]
        for episode in read(dataset, slice_, "unlabeled"):
            action = original[episode.episode_id].action
            assert action is not None
            assert not any(row.tobytes() in data for row in action for data in open_files)
            assert any(action.tobytes() in everything[name] for name in manifest.slices[slice_].splits["withheld"])


def test_what_is_withheld_decides_nothing(workspace: Path, dataset: Path, tmp_path: Path) -> None:
    """Other hidden actions: every byte is the same but those of the withheld files and their entries."""
    hidden = {
        episode.episode_id for name in ("medium", "medium-replay") for episode in read(dataset, name, "unlabeled")
    }
    for name in ("medium", "medium-replay"):
        for kind in ("labeled", "validation"):
            hidden -= {episode.episode_id for episode in read(dataset, name, kind)}
    assert len(hidden) > 20
    poisoned = []
    for episode in made():
        assert episode.action is not None
        other = np.where(episode.action > 0, -1, 1).astype(np.float32)
        poisoned.append(replace(episode, action=other) if episode.episode_id in hidden else episode)
    store(tmp_path, poisoned, credits="A. N. Author, CC BY 4.0")
    split(tmp_path, "--label-frac", "0.1", "--set", "split.quota=60", "--set", "split.rules.medium.max_return=20")
    one, other_ = contents(dataset), contents(tmp_path / "dataset" / "custom-made")
    assert {name for name in one if one[name] != other_[name]} == {NAME, *(n for n in one if "/withheld-" in n)}
    assert Manifest.load(dataset).digest == Manifest.load(tmp_path / "dataset" / "custom-made").digest


def test_the_same_split_twice_is_the_same_to_the_byte(workspace: Path, dataset: Path, tmp_path: Path) -> None:
    arguments = ("--label-frac", "0.1", "--set", "split.quota=60", "--set", "split.rules.medium.max_return=20")
    split(workspace, *arguments, "--out", str(tmp_path / "again"))
    assert contents(tmp_path / "again") == contents(dataset)
    split(workspace, *arguments, "--label-seed", "1", "--out", str(tmp_path / "again"))
    assert contents(tmp_path / "again").keys() == contents(dataset).keys()
    assert Manifest.load(tmp_path / "again").digest != Manifest.load(dataset).digest


def test_a_prefix_is_a_fair_sample(dataset: Path) -> None:
    orders = [episode.order for episode in read(dataset, "medium-replay", "unlabeled")]
    assert abs(np.corrcoef(orders, np.arange(len(orders)))[0, 1]) < 0.4


def test_many_shards_hold_what_one_holds(workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--label-frac", "0.1", "--set", "split.quota=60")
    split(workspace, *arguments, "--out", str(tmp_path / "one"))
    monkeypatch.setattr(splitting, "BUFFER_BYTES", 5_000)  # an episode has about 1,000
    monkeypatch.setattr(splitting, "MEGABYTE", 10_000)
    split(workspace, *arguments, "--set", "split.shard_mb=1", "--out", str(tmp_path / "many"))
    manifest = Manifest.load(tmp_path / "many")
    splits = manifest.slices["medium-replay"].splits
    assert len(splits["unlabeled"]) == len(splits["withheld"]) == 8 and len(splits["labeled"]) == 1
    ids = [
        [e.episode_id for e in read(tmp_path / name, "medium-replay", "unlabeled", True)] for name in ("one", "many")
    ]
    assert ids[0] == ids[1]


def test_manifest_and_card_state_the_statistics(dataset: Path) -> None:
    from huggingface_hub import DatasetCard

    entry = Manifest.load(dataset).slices["medium-replay"]
    rows = read(dataset, "medium-replay", "labeled") + read(dataset, "medium-replay", "unlabeled")
    returns = [episode.episode_return for episode in rows]
    assert entry.statistics["mean"] == pytest.approx(np.mean(returns), abs=1e-3)
    assert entry.statistics["median"] == pytest.approx(np.median(returns), abs=1e-3)
    assert (entry.statistics["episodes"], entry.statistics["labeled"], entry.statistics["steps"]) == (
        60,
        6,
        60 * LENGTH,
    )
    page = DatasetCard.load(dataset / "README.md")
    configs = {one["config_name"]: one["data_files"] for one in page.data.to_dict()["configs"]}
    named = {path for data_files in configs.values() for one in data_files for path in one["path"]}
    shard_names = {path for _, kind, path in Manifest.load(dataset).shards() if kind != "withheld"}
    assert named == shard_names, "every shard but the withheld"
    assert {"medium-replay", "medium-replay-validation", "medium"} <= configs.keys()
    for words in ("6 of 60 trajectories labeled", "A. N. Author, CC BY 4.0", "label seed 0", "`pose` 4, `height` 1"):
        assert words in page.text
    assert f"| medium-replay, labeled | 6 | {entry.labeled_statistics['mean']:.1f} |" in page.text


def test_statistics_by_hand() -> None:
    row = table4.statistics([0.0, 1.0, 2.0, 3.0, 10.0])
    assert row == {"mean": 3.2, "std": 3.544, "min": 0, "p25": 1, "median": 2, "p75": 3, "max": 10}
    assert table4.statistics([]) == {}


def test_plain_datasets_opens_the_folder(dataset: Path) -> None:
    code = f"""
import sys
from datasets import load_dataset
rows = list(load_dataset({str(dataset)!r}, "medium-replay", split="labeled", streaming=True).with_format("numpy"))
hidden = list(load_dataset({str(dataset)!r}, "medium-replay", split="unlabeled", streaming=True))
assert not any(name.startswith("lawm") for name in sys.modules)
assert len(rows) == 6 and len(hidden) == 54 and all(row["action"] is None for row in hidden)
assert rows[0]["observation"].reshape(-1, 5).shape == ({LENGTH} + 1, 5)
assert rows[0]["action"].reshape(-1, 2).shape == ({LENGTH}, 2)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert answer.returncode == 0, answer.stderr


def test_verify_and_a_second_split_through_the_commands(tmp_path: Path) -> None:
    """A smaller split leaves no stale shard behind."""
    store(tmp_path, made(40))
    split(tmp_path, "--label-frac", "0.5", "--set", "split.rules.expert.min_return=1")
    assert (tmp_path / "dataset/custom-made/expert").is_dir()
    split(tmp_path, "--label-frac", "0.5")
    assert not (tmp_path / "dataset/custom-made/expert").exists()
    answer = CliRunner().invoke(cli.main, ["verify", "--root", str(tmp_path)])
    assert answer.exit_code == 0 and "verified, 1 slices" in answer.output


@pytest.mark.parametrize("out", [None, "half"])
@pytest.mark.parametrize("root", ["l2", "a b"])
def test_the_next_steps_name_the_folder_that_was_written(root: str, out: str | None) -> None:
    """Whatever --root and --out say, and however a shell takes it apart."""
    store(Path(root), made(40))
    said = split(Path(root), *(("--out", out) if out else ())).partition("; next: ")[2].splitlines()[0]
    place = out or f"{root}/dataset/custom-made"
    push, train = said.split(", or ")
    assert shlex.split(push) == ["lawm-data", "push", place]
    assert shlex.split(train) == ["lawm-train", "--hub-dataset", place, "--root", root]


def test_more_numbers_than_a_manifest_holds_are_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(tmp_path, made())
    split(tmp_path)
    size = (tmp_path / "dataset" / "custom-made" / NAME).stat().st_size
    assert size > 4 * splitting.NUMBER_BYTES * 5, "its lists are a part of it"
    monkeypatch.setattr(splitting, "MAX_BYTES", 4 * splitting.NUMBER_BYTES * 5 - 1)
    answer = run(tmp_path, "--out", str(tmp_path / "again"))
    assert answer.exit_code == 2 and "observations of 5 numbers in 1 slices are more than" in answer.stderr
    assert not (tmp_path / "again").exists()


def test_recordings_that_may_only_be_read_are_split_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path / "shared", made())

    def refused(workspace: Path) -> None:
        raise UserError(f"{workspace}: cannot be written")

    monkeypatch.setattr(files, "lock", refused)
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK or "shared" not in str(path))
    split(tmp_path / "shared", "--out", str(tmp_path / "mine"))
    assert shards.verify(tmp_path / "mine")


def test_a_split_that_strips_nothing_says_how_to(tmp_path: Path) -> None:
    store(tmp_path, made(40))
    assert "--label-frac 0.05 keeps those of 5%" in split(tmp_path)
    assert "keeps those" not in split(tmp_path, "--label-frac", "0.1")


def test_a_named_import_without_actions_stays_unlabeled(tmp_path: Path) -> None:
    store(tmp_path, [episode.stripped() for episode in made(30, source="video")], "plan2explore")
    output = split(tmp_path)
    folder = tmp_path / "dataset" / "custom-made"
    assert "plan2explore: 30 of 30 episodes" in output and "0 of 30 labeled" in output
    assert "no episode has actions, and every method needs some" in output and "; next: " not in output
    assert len(read(folder, "plan2explore", "unlabeled")) == 30
    assert Manifest.load(folder).slices["plan2explore"].splits.keys() == {"unlabeled"}


def test_history_that_an_import_displaces_is_said(tmp_path: Path) -> None:
    store(tmp_path, made(30, source="foreign"), "medium-replay")
    assert "imported whole, so" not in split(tmp_path)
    store(tmp_path, made(25))
    said = split(tmp_path)
    assert "medium-replay: imported whole, so 25 episodes of the history that would fit are not in it" in said
    assert "medium-replay: 30 of 30 episodes" in said


def test_a_small_slice_is_left_out_and_said(tmp_path: Path) -> None:
    store(tmp_path, made(30))
    output = split(tmp_path, "--set", "split.rules.expert.min_return=1e9")
    assert "expert: 0 of 2000 episodes with return >= 1e+09; left out, as fewer than 20" in output
    assert list(Manifest.load(tmp_path / "dataset" / "custom-made").slices) == ["medium-replay"]


def test_what_varies_too_little_to_be_scaled_up_is_said(tmp_path: Path) -> None:
    """One that does not vary at all is not: float32's 0.1 has a mean in float64 that is not quite its own."""
    spread = np.array([1, 0.004, 0, 0.02, 0.009], np.float32)
    offset = np.array([0, 300, 0.1, 0, 0], np.float32)
    episodes = [replace(one, observation=one.observation * spread + offset) for one in made(30)]
    store(tmp_path, episodes)
    said = split(tmp_path)
    assert "medium-replay: observed with a standard deviation below 0.01, so not scaled up: " in said
    named = re.findall(r"(\S+) \(([\d.e-]+)\)(?=[,;])", said.split("scaled up: ")[1].splitlines()[0])
    whole = np.concatenate([one.observation for one in episodes]).astype(np.float64).std(0)
    assert [name for name, _ in named] == ["pose[1]", "height"]
    assert [float(std) for _, std in named] == pytest.approx([whole[1], whole[4]], rel=0.1), "some are for validation"
    store(tmp_path / "other", made(30))
    assert "scaled up" not in split(tmp_path / "other")


def test_trajectories_too_short_for_a_window_can_be_left_out(tmp_path: Path) -> None:
    """Wherever in a recording they stand; the message of a training that cannot use them says so."""
    episodes = [random_episode(k, 4 if k in (7, 8, 20) else LENGTH) for k in range(33)]
    store(tmp_path, episodes)
    said = split(tmp_path, "--set", "split.min_steps=5", "--label-frac", "0.2")
    assert "3 of 33 episodes are shorter than split.min_steps, 5; left out" in said
    (part,) = Manifest.load(tmp_path / "dataset" / "custom-made").slices.values()
    assert part.found == 30
    with pytest.raises(UserError, match=r"4 steps, shorter than a window of 5, as are 2 others; .* split.min_steps=5"):
        Pool(episodes, True, 2, 5)


def test_short_trajectories_are_left_out_of_a_whole_import_too(tmp_path: Path) -> None:
    episodes = [random_episode(k, 4 if k in (7, 8, 20) else LENGTH) for k in range(33)]
    store(tmp_path, episodes, "expert")
    split(tmp_path, "--set", "split.min_steps=5", "--label-frac", "0.2")
    assert Manifest.load(tmp_path / "dataset" / "custom-made").slices["expert"].found == 30


def test_a_recording_without_actions_stays_beside_a_whole_import_that_has_them(tmp_path: Path) -> None:
    """One is in the slice that was imported, the other in the history."""
    episodes = made(30)
    store(tmp_path, [replace(one, source="whole") for one in episodes], slice_name="plan2explore")
    store(tmp_path, [one.stripped() for one in episodes])
    split(tmp_path)
    slices = Manifest.load(tmp_path / "dataset" / "custom-made").slices
    counts = {name: entry.found for name, entry in slices.items()}
    assert counts == {"medium-replay": 30, "plan2explore": 30}


def test_what_another_source_holds_too_is_taken_once(tmp_path: Path) -> None:
    store(tmp_path, made(40))
    store(tmp_path, made(45, source="again"))
    assert "40 of 85 episodes are recordings that are there under another name" in split(tmp_path)
    folder = tmp_path / "dataset" / "custom-made"
    episodes = [*read(folder, "medium-replay", "labeled"), *read(folder, "medium-replay", "validation")]
    assert len({episode.observation.tobytes() for episode in episodes}) == len(episodes) == 45


def test_recordings_that_earn_alike_are_not_the_same(tmp_path: Path) -> None:
    """As where nothing is earned: some have actions, the others have none."""
    known = [replace(one, reward=np.zeros_like(one.reward)) for one in made(20)]
    store(tmp_path, known)
    store(tmp_path, [replace(one, source="video", observation=one.observation + 1).stripped() for one in known])
    split(tmp_path)
    assert Manifest.load(tmp_path / "dataset" / "custom-made").slices["medium-replay"].found == 40


@pytest.mark.parametrize("left", [files.PARTIAL, files.REPLACED])
def test_what_a_killed_split_left_is_no_dataset_and_the_old_one_comes_back(tmp_path: Path, left: str) -> None:
    store(tmp_path, made(40))
    split(tmp_path)
    place = tmp_path / "dataset" / "custom-made"
    place.rename(place.with_name(f"{left}{32 * 'a'}-custom-made"))
    with pytest.raises(UserError, match="no dataset there"):
        manifest.find(tmp_path / "dataset")
    assert statistics.collect_stats(tmp_path)["slices"] == []
    files.sweep(tmp_path / "dataset", "another")
    assert not place.exists()
    files.sweep(tmp_path / "dataset", "custom-made")
    assert [path.name for path in place.parent.iterdir()] == (["custom-made"] if left == files.REPLACED else [])


def test_a_dataset_of_another_env_is_not_replaced(tmp_path: Path) -> None:
    store(tmp_path, made(40))
    split(tmp_path, "--out", str(tmp_path / "mine"))
    path = tmp_path / "mine" / NAME
    path.write_text(path.read_text().replace("custom:made", "custom:other"))
    answer = run(tmp_path, "--out", str(tmp_path / "mine"))
    assert answer.exit_code == 2 and "holds a dataset of custom:other, not of custom:made" in answer.output


def test_a_short_slice_says_what_fills_it(tmp_path: Path) -> None:
    store(tmp_path, made(40))
    assert "short of the quota: medium-replay; filled by lawm-data import\n" in split(tmp_path), "no simulator makes it"
    assert "short of the quota" not in split(tmp_path, "--set", "split.quota=30")
    store(tmp_path / "suite", [replace(episode, env="walker-walk") for episode in made(40)])
    assert "filled by lawm-data collect (more --episodes or --seeds), or import\n" in split(tmp_path / "suite")


def test_fewer_validation_episodes_than_asked_for_are_explained(tmp_path: Path) -> None:
    store(tmp_path, made(40))
    assert "2 for validation (20 were asked for; 5% of those with actions at most);" in split(tmp_path)
    assert "10 for validation (20 were asked for; no more with actions were left over);" in split(
        tmp_path, "--set", "split.quota=30"
    )
    assert "10 for validation;" in split(tmp_path, "--set", "split.quota=30", "--set", "split.validation=10")


def test_the_folder_that_one_stands_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, made(30))
    (tmp_path / "out" / "inner").mkdir(parents=True)
    for place, out in ((tmp_path / "out", "."), (tmp_path / "out" / "inner", "..")):
        monkeypatch.chdir(place)
        answer = run(tmp_path, "--out", out)
        assert answer.exit_code == 2 and "holds the folder that you are in" in answer.output
    assert (tmp_path / "out" / "inner").is_dir()


def test_a_failed_split_keeps_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, made(30))
    split(tmp_path)
    before = contents(tmp_path / "dataset")

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_bytes", full)
    answer = run(tmp_path, "--label-frac", "0.5")
    assert answer.exit_code == 2 and "no space left on the disk" in answer.output
    assert contents(tmp_path / "dataset") == before
    assert json.loads(before[f"custom-made/{NAME}"])["label_fraction"] is None
