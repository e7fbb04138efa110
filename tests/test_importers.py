"""Laws of the importers: time is aligned, names are mapped, the same content is one source, bad input is one line."""

from __future__ import annotations

import shlex
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import counting_episode

from lawm_data import cli, importers
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.importers import aime, d4rl
from lawm_data.store import Store

CUSTOM = "custom:count"
FLAGS = ("is_first", "is_last", "is_terminal")
Arrays = dict[str, np.ndarray]


def aime_arrays(episode: Episode) -> Arrays:
    """One episode in AIME's layout: actions and rewards stand beside the observation that they led to."""
    assert episode.action is not None
    first = np.zeros(episode.length + 1)
    first[0] = 1
    return {
        "pre_action": np.concatenate([np.zeros((1, episode.action.shape[1])), episode.action]),
        "reward": np.concatenate([[0], episode.reward])[:, None],
        "is_first": first[:, None],
        "is_last": first[::-1, None],
        "is_terminal": first[::-1, None] * episode.terminal,
        "up": episode.observation[:, :1],
        "down": episode.observation[:, 1:],
    }


def d4rl_arrays(episodes: list[Episode]) -> Arrays:
    """Episodes in D4RL's layout, end to end."""
    ends = [np.arange(episode.length) == episode.length - 1 for episode in episodes]
    return {
        "observations": np.concatenate([episode.observation[:-1] for episode in episodes]),
        "next_observations": np.concatenate([episode.observation[1:] for episode in episodes]),
        "actions": np.concatenate([episode.action for episode in episodes if episode.action is not None]),
        "rewards": np.concatenate([episode.reward for episode in episodes]),
        "terminals": np.concatenate([end & episode.terminal for end, episode in zip(ends, episodes, strict=True)]),
        "timeouts": np.concatenate([end & (not episode.terminal) for end, episode in zip(ends, episodes, strict=True)]),
    }


def write(path: Path, arrays: Arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array if array.dtype.kind in "bSu" else array.astype(np.float32)
    return path


def write_aime(folder: Path, episodes: list[Episode]) -> Path:
    for episode in episodes:
        write(folder / f"{episode.order}.hdf5", aime_arrays(episode))
    return folder


def write_zip(path: Path, members: list[Path]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.write(member, f"inside/{member.name}")
    return path


def imported(raw: Path, format_name: str, *paths: Path, env: str = CUSTOM, slice_name: str | None = None) -> list:
    importers.run(format_name, list(paths), env, raw, slice_name)
    store = Store(raw)
    return list(store.read(store.rows(env)))


def check_same(found: list[Episode], expected: list[Episode], columns: slice = slice(None)) -> None:
    assert [episode.order for episode in found] == list(range(len(expected)))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.observation, other.observation[:, columns])
        np.testing.assert_array_equal(one.action, other.action)
        np.testing.assert_array_equal(one.reward, other.reward)
        assert one.terminal == other.terminal


def terminal(episode: Episode) -> Episode:
    return Episode(**vars(episode) | {"terminal": True})


EPISODES = [counting_episode(0), terminal(counting_episode(1, length=7)), *(counting_episode(k) for k in range(2, 12))]


def test_aime_is_aligned_and_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    folder = write_aime(tmp_path / "buffer", EPISODES)
    found = imported(tmp_path / "raw", "aime", folder)
    check_same(found, EPISODES, columns=slice(None, None, -1))  # by name: `down` before `up`
    store = Store(tmp_path / "raw")
    meta = store.meta(CUSTOM, store.sources(CUSTOM)[0])
    assert meta["layout"] == [["down", 1], ["up", 1]] and meta["action_size"] == 1 and meta["repeat"] is None


def test_aime_as_folder_zip_and_parts_is_one_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_aime(tmp_path / "buffer", EPISODES)
    members = list(folder.iterdir())
    whole = write_zip(tmp_path / "whole.zip", members)
    parts = [write_zip(tmp_path / f"part{k}.zip", members[k::2]) for k in range(2)]
    for paths in ([folder], [whole], parts, parts[::-1], members):
        check_same(imported(tmp_path / "raw", "aime", *paths), EPISODES, columns=slice(None, None, -1))
    assert len(Store(tmp_path / "raw").sources(CUSTOM)) == 1
    assert capsys.readouterr().out.count("imported already, nothing added") == 4


def test_images_are_never_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "0.hdf5", aime_arrays(EPISODES[0]))
    with h5py.File(path, "a") as file:  # 2 TB, were it read
        file.create_dataset("image", shape=(21, 160_000, 160_000), dtype="f4", chunks=(1, 64, 64))
    check_same(imported(tmp_path / "raw", "aime", path), EPISODES[:1], columns=slice(None, None, -1))


def walker_arrays() -> Arrays:
    """Every observed number its column, named as in walker-walk and written in alphabetical order."""
    arrays = aime_arrays(counting_episode(0))
    del arrays["up"], arrays["down"]
    layout = {"orientations": range(14), "height": range(14, 15), "velocity": range(15, 24)}
    arrays |= {key: np.tile(columns, (21, 1)) for key, columns in sorted(layout.items())}
    arrays["pre_action"] = np.zeros((21, 6))
    return arrays


def test_aime_keys_are_mapped_by_name_to_the_layout_of_the_env(tmp_path: Path) -> None:
    path = write(tmp_path / "0.hdf5", walker_arrays())
    (episode,) = imported(tmp_path / "raw", "aime", path, env="walker-walk")
    np.testing.assert_array_equal(episode.observation, np.tile(np.arange(24), (21, 1)))


@pytest.mark.parametrize("block", [1, 200, d4rl.BLOCK_BYTES])
def test_d4rl_is_cut_at_the_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(d4rl, "BLOCK_BYTES", block)
    monkeypatch.setattr(d4rl, "FLAG_ROWS", 33)
    path = write(tmp_path / "buffer.hdf5", d4rl_arrays(EPISODES))
    check_same(imported(tmp_path / "raw", "d4rl", path), EPISODES)


def test_d4rl_files_follow_each_other(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{k}.h5", d4rl_arrays(part)) for k, part in enumerate((EPISODES[:5], EPISODES[5:]))]
    check_same(imported(tmp_path / "raw", "d4rl", *paths), EPISODES)


def test_d4rl_without_next_observations_leaves_out_the_last_steps(tmp_path: Path) -> None:
    arrays = d4rl_arrays(EPISODES)
    del arrays["next_observations"]
    found = imported(tmp_path / "raw", "d4rl", write(tmp_path / "buffer.hdf5", arrays))
    for one, other in zip(found, EPISODES, strict=True):
        np.testing.assert_array_equal(one.observation, other.observation[:-1])
        np.testing.assert_array_equal(one.action, other.action[:-1])
        np.testing.assert_array_equal(one.reward, other.reward[:-1])
        assert not one.terminal


@pytest.mark.parametrize("kind", ["?", "i1", "u2", "i4", "i8", "f2", "f8"])
def test_observations_of_any_numbers_are_read(tmp_path: Path, kind: str) -> None:
    whole = d4rl_arrays(EPISODES)
    with h5py.File(tmp_path / "set.hdf5", "w") as file:
        for key, value in whole.items():
            file[key] = np.sign(value).astype(kind) if "observations" in key else value
    for found, one in zip(imported(tmp_path / "raw", "d4rl", tmp_path / "set.hdf5"), EPISODES, strict=True):
        np.testing.assert_array_equal(found.observation, np.sign(one.observation).astype(kind).astype(np.float32))


def test_what_float32_cannot_tell_beside_an_offset_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not where it is the rounding of a simulator, nor of a constant."""

    def told(name: str, **columns: np.ndarray) -> str:
        arrays = {key: value.astype(np.float64) for key, value in d4rl_arrays(EPISODES).items()}
        moved = np.stack([np.arange(len(arrays["rewards"])), *columns.values()], axis=1)
        path = tmp_path / f"{name}.hdf5"
        with h5py.File(path, "w") as file:
            for key, value in (arrays | {"observations": moved, "next_observations": np.roll(moved, -1, 0)}).items():
                file[key] = value
        capsys.readouterr()
        imported(tmp_path / name, "d4rl", path)
        return capsys.readouterr().err

    wave = np.sin(np.arange(sum(episode.length for episode in EPISODES)))
    note = "12 episodes vary by less than float32 can tell beside an offset: column 2 of the observations of "
    assert note in told("far", near=wave, far=1e6 + 1e-3 * wave)
    assert "offset" not in told(
        "near", jitter=1 + 1e-15 * wave, settling=0.5 + 1e-9 * wave, constant=1e6 + 0 * wave, near=1e6 + 10 * wave
    )


def test_d4rl_unfinished_tail_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = {key: array[:-3] for key, array in d4rl_arrays(EPISODES).items()}
    check_same(imported(tmp_path / "raw", "d4rl", write(tmp_path / "buffer.hdf5", arrays)), EPISODES[:-1])
    assert "left out the last 17 steps" in capsys.readouterr().err


def test_a_slice_is_kept_and_cannot_change_by_a_second_import(tmp_path: Path) -> None:
    path = write(tmp_path / "buffer.hdf5", d4rl_arrays(EPISODES))
    imported(tmp_path / "raw", "d4rl", path, slice_name="plan2explore")
    assert {row.slice_name for row in Store(tmp_path / "raw").rows(CUSTOM)} == {"plan2explore"}
    with pytest.raises(UserError, match="before as plan2explore, now as history"):
        imported(tmp_path / "raw", "d4rl", path)


@pytest.mark.parametrize("root", [None, "a b"])
def test_the_next_step_runs_as_printed(root: str | None) -> None:
    """Also where another env is in the workspace, and where that is not the default one."""
    path = write(Path("buffer.hdf5"), d4rl_arrays([counting_episode(order) for order in range(25)]))
    said = []
    for env in ("custom:other", CUSTOM):
        words = ["import", "d4rl", str(path), "--env", env, *(("--root", root) if root else ())]
        said.append(CliRunner().invoke(cli.main, words).output.partition("; next: ")[2].rstrip("\n"))
    assert said[1] == "lawm-data split --env custom:count" + (" --root 'a b'" if root else "")
    answer = CliRunner().invoke(cli.main, shlex.split(said[1])[1:])
    assert answer.exit_code == 0 and f"{root or 'lawm'}/dataset/custom-count: verified" in answer.output


@pytest.mark.parametrize(("name", "said"), [("plan2explor", True), ("plan2explore", False), ("medium-replay", False)])
def test_a_slice_that_is_none_of_the_paper_s_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: bool
) -> None:
    imported(tmp_path / "raw", "d4rl", write(tmp_path / "a.hdf5", d4rl_arrays(EPISODES)), slice_name=name)
    lines = [line for line in capsys.readouterr().out.splitlines() if "a slice of its own" in line]
    assert len(lines) == said
    assert all(f"{name}: " in line and "expert, medium, medium-replay, plan2explore;" in line for line in lines)


def test_a_slice_s_name_leaves_room_for_what_is_joined_to_it(tmp_path: Path) -> None:
    path = write(tmp_path / "buffer.hdf5", d4rl_arrays(EPISODES))
    with pytest.raises(UserError, match=f"--slice {80 * 'a'}: .*up to 64 characters"):
        imported(tmp_path / "raw", "d4rl", path, slice_name=300 * "a")
    with pytest.raises(UserError, match="up to 64 characters"):
        imported(tmp_path / "raw", "d4rl", path, slice_name=65 * "a")
    imported(tmp_path / "raw", "d4rl", path, slice_name=64 * "a")
    assert {row.slice_name for row in Store(tmp_path / "raw").rows(CUSTOM)} == {64 * "a"}


def test_a_huge_zip_member_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_zip(tmp_path / "0.zip", [write(tmp_path / "0.hdf5", aime_arrays(EPISODES[0]))])
    monkeypatch.setattr(aime, "MEMBER_BYTES", 1000)
    with pytest.raises(UserError, match=r"0\.hdf5.*more than the 1,000"):
        imported(tmp_path / "raw", "aime", path)


def test_too_long_an_episode_for_the_env_is_refused(tmp_path: Path) -> None:
    arrays = {key: np.repeat(array, 26, axis=0) for key, array in walker_arrays().items()}
    arrays["is_first"][1:] = arrays["is_last"][:-1] = 0
    with pytest.raises(UserError, match=r"0\.hdf5: 545 steps.*500 at action repeat 2"):
        imported(tmp_path / "raw", "aime", write(tmp_path / "0.hdf5", arrays), env="walker-walk")


def test_an_unmarked_reset_is_seen_at_any_scale(tmp_path: Path) -> None:
    for k, scale in enumerate((1.0, 1e-6)):
        arrays = d4rl_arrays(EPISODES)
        arrays["timeouts"][np.argmax(arrays["timeouts"])] = 0
        for key in ("observations", "next_observations"):
            arrays[key] = scale * arrays[key]
        with pytest.raises(UserError, match="and neither terminals nor timeouts marks an end there"):
            imported(tmp_path / f"raw{k}", "d4rl", write(tmp_path / f"{k}.hdf5", arrays))
