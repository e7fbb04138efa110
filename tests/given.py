"""What makes bad input in the current folder. A builder returns nothing, or what is to hold while a command runs."""

from __future__ import annotations

import json
import resource
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from foreign import Group, laom_group, lerobot_columns, minari_episode, write_laom, write_lerobot, write_minari
from huggingface_hub import constants
from loopback_hub import LoopbackHub, Repository
from made_dataset import made_episodes, make_dataset
from test_importers import EPISODES, Arrays, aime_arrays, d4rl_arrays, write, write_aime, write_zip
from test_split import made, store

import lawm_data.cli
import lawm_train.cli
from lawm_data import files
from lawm_data.manifest import NAME

Given = Callable[[], AbstractContextManager[None] | None]
GROUPS = {"lawm-data": lawm_data.cli.main, "lawm-train": lawm_train.cli.main}
TRAIN = "lawm-train --hub-dataset lawm/dataset/custom-made"
BC = "--method bc --set agent.bc.updates=2 --set train.window=8"


def run(command: str) -> Result:
    program, *arguments = shlex.split(command)
    return CliRunner().invoke(GROUPS[program], arguments)


def succeed(command: str) -> None:
    answer = run(command)
    assert answer.exit_code == 0, answer.output


def nothing() -> None:
    """The command alone is wrong."""


def at(row: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[row] = value
        return array

    return change


def whole(data: bytes) -> bytes:
    return data


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def empty(data: bytes) -> bytes:
    return b""


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def hdf5(path: str, arrays: Arrays, changes: dict[str, Any], content: Callable[[bytes], bytes]) -> Given:
    """The arrays, some replaced by a function of themselves or (None) left out; then the file's bytes changed."""

    def make() -> None:
        replaced = {key: change(arrays[key]) if change else None for key, change in changes.items()}
        file = write(Path(path), {key: array for key, array in (arrays | replaced).items() if array is not None})
        file.write_bytes(content(file.read_bytes()))

    return make


def aime(path: str = "3.hdf5", content: Callable[[bytes], bytes] = whole, **changes: Any) -> Given:
    return hdf5(path, aime_arrays(EPISODES[0]), changes, content)


def d4rl(content: Callable[[bytes], bytes] = whole, **changes: Any) -> Given:
    return hdf5("bad.hdf5", d4rl_arrays(EPISODES), changes, content)


def minari(metadata: dict[str, Any] | None = None, **changes: Any) -> Given:
    """Three episodes, the arrays of the last replaced, in the folder `set`."""
    groups: list[Group] = [minari_episode(episode) for episode in EPISODES[:3]]
    groups[-1] |= changes

    def make() -> None:
        write_minari(Path("set"), groups, **(metadata or {}))

    return make


def lerobot(version: str = "v3.0", info: dict[str, Any] | None = None, **changes: Any) -> Given:
    """Three episodes, columns of the last replaced ('.' written '_'), in the folder `set`."""
    episodes: list[Group] = [lerobot_columns(episode) for episode in EPISODES[:3]]
    names = {name.replace(".", "_"): name for name in episodes[0]}
    episodes[-1] |= {names[name]: rows for name, rows in changes.items()}

    def make() -> None:
        write_lerobot(Path("set"), episodes, version, **(info or {}))

    return make


def laom(rewards: bool = True, **changes: Any) -> Given:
    """Three episodes, the arrays of the last replaced, in `laom.hdf5`."""
    groups: list[Group] = [laom_group(episode, rewards) for episode in EPISODES[:3]]
    groups[-1] |= changes

    def make() -> None:
        write_laom(Path("laom.hdf5"), groups)

    return make


def of_no_simulator() -> None:
    d4rl()()
    succeed("lawm-data import d4rl bad.hdf5 --env custom:count")


def collected() -> None:
    succeed("lawm-data collect --env pendulum-swingup --policy random --episodes 1 --set collect.repeat=50")


def begun_to_collect() -> None:
    """A collector that was cut in its first round."""
    collected()
    shutil.rmtree("lawm/raw/pendulum-swingup/random/0")


def late_aime() -> None:
    """The first episodes are whole, the last is not: they must not stay."""
    write_aime(Path("buffer"), EPISODES)
    aime("buffer/12.hdf5", up=at(4, np.nan))()


def dangling(path: str) -> None:
    """A link to nowhere."""
    Path(path).parent.mkdir()
    Path(path).symlink_to("nowhere")


def a_file_and_a_dataset() -> None:
    dataset_with_notes()
    files.write_text(Path("a"), "mine")


def truncated_zip() -> None:
    path = write_zip(Path("bad.zip"), list(write_aime(Path("buffer"), EPISODES).iterdir()))
    path.write_bytes(path.read_bytes()[:-200])


def flipped_zip() -> None:
    path = write_zip(Path("bad.zip"), [write(Path("0.hdf5"), aime_arrays(EPISODES[0]))])
    path.write_bytes(flipped(path.read_bytes(), 200))


def history(**other: Any) -> Given:
    """30 raw episodes of custom:made."""
    return lambda: store(Path("lawm"), made(30, **other))


def history_of_few_actions() -> None:
    store(Path("lawm"), [episode if episode.order < 3 else episode.stripped() for episode in made(40)])


def truncated_history() -> None:
    history()()
    (chunk,) = Path("lawm").rglob("*.h5")
    chunk.write_bytes(half(chunk.read_bytes()))


def occupied() -> None:
    history()()
    files.write_text(Path("occupied/letter.txt"), "mine")


def unlabeled() -> None:
    store(Path("lawm"), [episode.stripped() for episode in made(30)])
    succeed("lawm-data split")


def dataset(folder: str = "lawm/dataset/custom-made", count: int = 15) -> None:
    make_dataset(Path(folder), made_episodes(count))


def damaged_shard() -> None:
    dataset()
    (shard,) = Path("lawm/dataset/custom-made/medium-replay").glob("labeled-*")
    shard.write_bytes(flipped(shard.read_bytes(), 300))


def stale_shard() -> None:
    dataset()
    files.write_text(Path("lawm/dataset/custom-made/medium-replay/labeled-00007-of-00008.arrow"), "of an old split")


def dataset_with_notes() -> None:
    history()()
    succeed("lawm-data split")
    files.write_text(Path("lawm/dataset/custom-made/notes.txt"), "mine")


def dataset_with_hidden_notes() -> None:
    history()()
    succeed("lawm-data split")
    files.write_text(Path("lawm/dataset/custom-made/medium-replay/.notes"), "mine")


def text_file(path: str, text: str) -> Given:
    return lambda: files.write_text(Path(path), text)


def manifest(text: str) -> Given:
    return text_file(f"data/{NAME}", text)


def trained() -> None:
    dataset()
    dataset("other", 16)
    succeed(f"{TRAIN} {BC}")


def stopped() -> None:
    """A run with a simulator that diverged before its first checkpoint."""
    trained_on_another_task()
    for checkpoint in Path("lawm/runs").glob("*/checkpoint-*"):
        shutil.rmtree(checkpoint)
    path = Path("lawm/runs/custom-made-medium-replay-bc-s0")
    sizes = {"observation": 3, "action": 1, "terminal": False, "free_nats": 1.0}
    files.write_json(path / "config.json", files.read_json(path / "config.json") | {"sizes": sizes})
    row = {"kind": "stopped", "phase": "bc", "update": 3, "term": "action", "checkpoint": None}
    files.append_line(path / "metrics.jsonl", json.dumps(row))


def begun() -> None:
    """A run before its first checkpoint."""
    trained()
    for checkpoint in Path("lawm/runs").glob("*/checkpoint-*"):
        shutil.rmtree(checkpoint)


def of_another_task(folder: str = "lawm/dataset/custom-made") -> None:
    """A dataset that says to be of pendulum-swingup, and is not."""
    dataset(folder)
    value = files.read_json(Path(folder) / NAME)
    files.write_json(Path(folder) / NAME, value | {"env": "pendulum-swingup", "repeat": 2})


def trained_on_another_task() -> None:
    """A run that says to be of pendulum-swingup, and is not."""
    trained()
    path = Path("lawm/runs/custom-made-medium-replay-bc-s0/config.json")
    files.write_json(path, files.read_json(path) | {"env": "pendulum-swingup", "repeat": 2})


def without_withheld() -> None:
    """A dataset as it is after a push without --with-actions and a plain download."""
    dataset()
    for path in Path("lawm/dataset/custom-made").rglob("withheld-*"):
        path.unlink()


def in_use() -> AbstractContextManager[None]:
    dataset()
    return files.lock(Path("lawm"))


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """A real limit: a write beyond it fails as on a full disk, in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full(given: Given, size: int) -> Given:
    def make() -> AbstractContextManager[None]:
        given()
        return file_size_limit(size)

    return make


@contextmanager
def hub(token: str = "hf_test") -> Iterator[None]:
    """A Hub with two repositories that hold no dataset, one of them private."""
    with LoopbackHub(Path("hub")) as server, pytest.MonkeyPatch.context() as patch:
        for name, private in (("tester/empty", False), ("tester/secret", True)):
            repository = server.repositories["datasets", name] = Repository("datasets", name, private)
            repository.add({".gitattributes": server.store(b"", lfs=False)}, "initial commit")
        point_to(server.url, patch)
        patch.setenv("HF_TOKEN", token)
        yield


@contextmanager
def no_hub() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        point_to("http://127.0.0.1:9", patch)
        yield


def point_to(url: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
