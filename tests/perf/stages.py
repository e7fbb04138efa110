"""Import, split and verify, each as a command of its own: speed, and the peak memory of its process.

Start-up (imports of libraries) is measured with the same command on TINY episodes and subtracted from the time.
No torch here: on Linux a child's peak is never less than what its parent held, so this process has to stay small.

Shapes: E episodes, T steps, O observation size, A action size.
"""

from __future__ import annotations

import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from lawm_data import files
from lawm_data.bench import Row

ENV, SLICE = "walker-walk", "medium-replay"
PARTS = {"orientations": 14, "height": 1, "velocity": 9}  # of the observation of ENV
STEPS, OBSERVATION, ACTION = 500, sum(PARTS.values()), 6
EPISODE_BYTES = 4 * ((STEPS + 1) * OBSERVATION + STEPS * (ACTION + 1))
TINY = 20  # episodes, the least that make a slice
AIME = 1_000  # episodes, each a file; what is split from them is what the rows on learning read
AT_ONCE = 200  # episodes made and written at a time


Command = list[str | Path]  # of lawm-data; ends with its workspace


class Cost(NamedTuple):
    seconds: float
    peak_bytes: int


class Made(NamedTuple):
    """observation [E, T+1, O], action [E, T, A] in [-1, 1], reward [E, T] in [0, 1], float32."""

    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray


def rows(folder: Path, gigabytes: float, repeats: int) -> Iterator[Row]:
    """Leaves the dataset of AIME episodes in `dataset_of(folder)`."""
    tiny, large, aime = folder / "tiny", folder / "large", folder / "aime"
    count = max(TINY, round(gigabytes * 1e9 / EPISODE_BYTES))
    for place, episodes in ((tiny, TINY), (large, count)):
        write_d4rl(_d4rl(place), episodes)
    for place, episodes in ((tiny, TINY), (aime, AIME)):
        write_aime(_aime(place), episodes)

    yield _stage("import d4rl", "", [_importing("d4rl", _d4rl(at), at) for at in (tiny, large)], "raw", count, repeats)
    _d4rl(large).unlink()
    yield _stage("split", "≥ 100 MB/s", [_splitting(at) for at in (tiny, large)], "dataset", count, repeats)
    yield _stage("verify", "", [["verify", "--root", at] for at in (tiny, large)], None, count, repeats)
    shutil.rmtree(large)
    yield _stage("import aime", "", [_importing("aime", _aime(at), at) for at in (tiny, aime)], "raw", AIME, repeats)
    run(_splitting(aime))


def dataset_of(folder: Path) -> Path:
    return folder / "aime" / "dataset" / ENV


def run(arguments: Command) -> Cost:
    """One lawm-data command; RuntimeError with its output where it fails."""
    command = [sys.executable, "-m", "lawm_data.cli", *map(str, arguments)]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}\n{output.read().decode()}")
    return Cost(seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def write_d4rl(path: Path, episodes: int) -> None:
    """Plain arrays without compression, with `next_observations`; memory does not grow with `episodes`."""
    sizes: dict[str, tuple[int, ...]] = {"observations": (OBSERVATION,), "next_observations": (OBSERVATION,)}
    sizes |= {"actions": (ACTION,), "rewards": (), "terminals": (), "timeouts": ()}
    with files.new_file(path) as temporary, h5py.File(temporary, "w") as file:
        for key, size in sizes.items():
            file.create_dataset(key, (episodes * STEPS, *size), bool if key in ("terminals", "timeouts") else "f4")
        for start in range(0, episodes, AT_ONCE):
            made = _made(start, min(AT_ONCE, episodes - start))
            flat = slice(start * STEPS, start * STEPS + made.reward.size)
            file["observations"][flat] = made.observation[:, :-1].reshape(-1, OBSERVATION)
            file["next_observations"][flat] = made.observation[:, 1:].reshape(-1, OBSERVATION)
            file["actions"][flat] = made.action.reshape(-1, ACTION)
            file["rewards"][flat] = made.reward.ravel()
            file["timeouts"][flat] = np.arange(1, made.reward.size + 1) % STEPS == 0


def write_aime(path: Path, episodes: int) -> None:
    """A zip of one HDF5 file an episode, compressed as the published ones are (deflate around LZF)."""
    with files.new_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for start in range(0, episodes, AT_ONCE):
            made = _made(start, min(AT_ONCE, episodes - start))
            for number, (observation, action, reward) in enumerate(zip(*made, strict=True), start):
                archive.writestr(f"{number}.hdf5", _aime_file(observation, action, reward))


def _aime_file(observation: np.ndarray, action: np.ndarray, reward: np.ndarray) -> bytes:
    flags = np.zeros((STEPS + 1, 3), np.float32)
    flags[0, 0] = flags[-1, 1] = 1
    columns = dict(zip(("is_first", "is_last", "is_terminal"), np.split(flags, 3, axis=1), strict=True))
    columns |= zip(PARTS, np.split(observation, np.cumsum(list(PARTS.values()))[:-1], axis=1), strict=True)
    columns["pre_action"] = np.pad(action, ((1, 0), (0, 0)))
    columns["reward"] = np.pad(reward, (1, 0))[:, None]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for key, column in columns.items():
            file.create_dataset(key, data=column, compression="lzf")
    return buffer.getvalue()


def _made(start: int, count: int) -> Made:
    """Episodes start..start+count-1."""
    rng = np.random.default_rng(start)
    observation = rng.standard_normal((count, STEPS + 1, OBSERVATION), np.float32)
    action = 2 * rng.random((count, STEPS, ACTION), np.float32) - 1
    return Made(observation, action, rng.random((count, STEPS), np.float32))


def _stage(name: str, target: str, commands: list[Command], makes: str | None, episodes: int, repeats: int) -> Row:
    """commands: on TINY episodes and on `episodes`; makes: the folder of the workspace that each run makes anew."""
    tiny, full = (_repeated(command, makes, repeats) for command in commands)
    megabytes, seconds = episodes * EPISODE_BYTES / 1e6, max(0, full.seconds - tiny.seconds)
    speed = f"{megabytes / seconds:,.0f} MB/s" if seconds > 0 else "too few to time"
    return Row(
        name,
        f"{speed}, peak {full.peak_bytes / 1e6:,.0f} MB",
        f"{target}, < 1,000 MB".removeprefix(", "),
        f"`lawm-data {name}`: {episodes:,} episodes, {megabytes:,.0f} MB of float32 in {seconds:.1f} s after "
        f"{tiny.seconds:.1f} s of start-up; median of {repeats}, peak RSS of the process",
    )


def _repeated(command: Command, makes: str | None, repeats: int) -> Cost:
    """Median time, greatest peak."""
    costs = []
    for _ in range(repeats):
        if makes:
            shutil.rmtree(Path(command[-1]) / makes, ignore_errors=True)
        costs.append(run(command))
    return Cost(statistics.median(cost.seconds for cost in costs), max(cost.peak_bytes for cost in costs))


def _importing(format_name: str, recording: Path, root: Path) -> Command:
    return ["import", format_name, recording, "--env", ENV, "--slice", SLICE, "--root", root]


def _splitting(root: Path) -> Command:
    return ["split", "--label-frac", "0.05", "--root", root]


def _d4rl(root: Path) -> Path:
    return root / "made.d4rl.hdf5"


def _aime(root: Path) -> Path:
    return root / "made.aime.zip"
