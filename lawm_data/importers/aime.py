"""AIME's plan2explore layout: one HDF5 file an episode, `0.hdf5`, `1.hdf5`, ..., in folders, zips or both.

Row t of `pre_action` and `reward` LED TO observation t, and row 0 is the reset: a_t = pre_action[t+1] and
r_t = reward[t+1] (argmax-ai/aime, IcarusWizard/AIME-NoB). A file without `pre_action` is a trajectory without actions.
Images are never decoded.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path, PurePosixPath

import h5py
import numpy as np

from lawm_data.errors import UserError
from lawm_data.hdf5 import opened
from lawm_data.importers.recording import (
    Layout,
    Trajectory,
    attempt,
    check_lengths,
    check_names,
    column,
    dataset,
    flags,
    parts_of,
    present,
    rows,
    values,
    width,
)
from lawm_data.progress import Bar

ACTIONS = "pre_action"
NOT_OBSERVED = {ACTIONS, "reward", "is_first", "is_last", "is_terminal", "image"}
MEMBER_BYTES = 256_000_000  # ten times a file with images; a zip bomb would fill the memory
CREDITS = "plan2explore buffers of AIME-NoB, https://huggingface.co/datasets/IcarusWizard/AIME-NoB, CC BY 4.0"
# other people's files may have this layout, and the plan2explore files another name
UNSURE = f"recorded in AIME's layout, in which the best known files are the {CREDITS}: credit them if these are theirs"
EPISODE_NAME = re.compile(r"\d+\.hdf5")


@dataclass(frozen=True)
class Member:
    """The episode file `name` in the folder or zip `parent`; `crc32` is what a zip keeps of its content."""

    parent: Path
    name: str
    size: int
    crc32: int

    @property
    def number(self) -> int:
        return int(PurePosixPath(self.name).stem)

    @property
    def where(self) -> str:
        return str(self.parent / self.name)


class Aime:
    """The episode files of all paths together, in the order of their numbers."""

    env: str | None = None
    action_key = ACTIONS
    action_bounds: list[list[float]] | None = None

    def __init__(self, paths: list[Path]) -> None:
        self.members = sorted((member for path in paths for member in _members(path)), key=lambda m: m.number)
        for one, other in pairwise(self.members):
            if one.number == other.number:
                raise UserError(f"{other.where}: {one.where} has the same number; name each part once")
        self.count = len(self.members)
        content = "".join(f"{member.number} {member.size} {member.crc32}\n" for member in self.members)
        self.digest = hashlib.sha256(content.encode()).hexdigest()
        self.credits: str | None = CREDITS if any("plan2explore" in str(path) for path in paths) else UNSURE
        self.notes = _gaps([member.number for member in self.members])
        handle, where = next(self._handles())
        with opened(handle, where) as file:
            self.layout = tuple((key, width(dataset(file, key, where))) for key in file if key not in NOT_OBSERVED)
        if not self.layout:
            raise UserError(f"{where}: no observations beside {', '.join(sorted(NOT_OBSERVED))}; check FORMAT")
        if misnamed := {"action", "actions"}.intersection(key for key, _ in self.layout):
            raise UserError(f"{where}: '{misnamed.pop()}' is no observation; AIME calls its actions '{ACTIONS}'")

    @cached_property
    def action_size(self) -> int | None:
        """Of the first file that has actions; where many have none, their bytes are read for it."""
        for handle, where in self._handles():
            with opened(handle, where) as file:
                if ACTIONS in file:
                    return width(dataset(file, ACTIONS, where))
        return None

    def trajectories(self, layout: Layout) -> Iterator[Trajectory | UserError]:
        for handle, where in self._handles():
            found = attempt(self._read, handle, where, layout)
            if isinstance(found, UserError):
                yield found
                continue
            if len(found) > 1:
                places = ", ".join(one.where.rpartition(" ")[2] for one in found)
                self.notes.append(f"{where}: a reset in mid-episode, taken as {len(found)} episodes: rows {places}")
            whole = [one for one in found if len(one.reward)] or found
            if lone := len(found) - len(whole):
                self.notes.append(f"{where}: left out {lone} rows, a reset without a step")
            yield from whole

    def _read(self, handle: Path | io.BytesIO, where: str, layout: Layout) -> list[Trajectory]:
        with opened(handle, where) as file:
            if layout == self.layout:
                check_names((key for key in file if key not in NOT_OBSERVED), layout, where)
            return _trajectories(file, layout, where)

    def _handles(self) -> Iterator[tuple[Path | io.BytesIO, str]]:
        """Each episode file in turn, a zip's through memory, with its place for messages."""
        with ExitStack() as stack:
            zips: dict[Path, zipfile.ZipFile] = {}
            for member in self.members:
                if member.parent.is_dir():
                    yield member.parent / member.name, member.where
                    continue
                if member.parent not in zips:
                    zips[member.parent] = stack.enter_context(_opened_zip(member.parent))
                with _zip_errors(member.where):
                    content = zips[member.parent].read(member.name)
                yield io.BytesIO(content), member.where


def _trajectories(file: h5py.File, layout: Layout, where: str) -> list[Trajectory]:
    """The trajectories of one file: more than one where a reset in mid-episode begins another."""
    steps = present(file, (ACTIONS, "reward", "is_first", "is_terminal"), ACTIONS, where)
    parts = parts_of(file, layout, where)
    length = check_lengths(steps | parts, where)
    observation = np.concatenate([values(part) for part in parts.values()], axis=1)
    action = rows(steps[ACTIONS]) if ACTIONS in steps else None
    reward = column(steps["reward"], where)
    first, terminal = (flags(steps[key], where) for key in ("is_first", "is_terminal"))
    bounds = [0, *(np.flatnonzero(first[1:]) + 1).tolist(), length]
    within = np.setdiff1d(np.flatnonzero(terminal), np.array(bounds[1:]) - 1)
    if len(within):
        raise UserError(f"{where}: is_terminal is true in row {within[0]}, and the episode goes on; split it there")
    last = flags(file["is_last"], where) if "is_last" in file else terminal
    if len(within := np.setdiff1d(np.flatnonzero(last), np.array(bounds[1:]) - 1)):
        raise UserError(f"{where}: is_last is true in row {within[0]}, and no is_first in the next; mark it there")
    return [
        Trajectory(
            where=where if len(bounds) == 2 else f"{where}, rows {begin}..{end - 1}",
            observation=observation[begin:end],
            action=None if action is None else action[begin + 1 : end],
            reward=reward[begin + 1 : end],
            terminal=bool(np.any(terminal[begin:end][-1:])),
            first=(begin, begin + 1),
        )
        for begin, end in pairwise(bounds)
    ]


def _gaps(numbers: list[int]) -> list[str]:
    """A forgotten part of a download shows in the numbers."""
    missing = numbers[-1] + 1 - len(numbers)
    if not missing:
        return []
    first = next(place for place, number in enumerate(numbers) if number != place)
    return [f"{missing} of the files 0..{numbers[-1]} are not there, the first is {first}"]


def _members(path: Path) -> list[Member]:
    if path.is_dir():
        found = [file for file in path.rglob("*.hdf5") if _is_episode(path, str(file.relative_to(path)))]
        members = [_file_member(file, path) for file in Bar(found, desc="checksums", leave=False, disable=None)]
    elif EPISODE_NAME.fullmatch(path.name) and path.is_file():
        members = [_file_member(path, path.parent)]
    elif path.suffix in (".hdf5", ".h5") and path.is_file():
        raise UserError(f"{path}: expected a number as the name, as in 12.hdf5; rename it, or give its folder or zip")
    else:
        with _opened_zip(path) as archive:
            infos = [info for info in archive.infolist() if _is_episode(path, info.filename)]
        members = [_zip_member(info, path) for info in infos]
    if not members:
        raise UserError(f"{path}: no episode files (0.hdf5, 1.hdf5, ...) in it; give the folder or zip that holds them")
    return members


def _is_episode(parent: Path, name: str) -> bool:
    """Whether `name` is an episode file. Raise UserError for HDF5 without a number, whose place in time is unknown."""
    base = PurePosixPath(name).name
    if not base.endswith(".hdf5") or base.startswith("."):
        return False
    if not EPISODE_NAME.fullmatch(base):
        raise UserError(f"{parent / name}: expected a number as the name, as in 12.hdf5; rename or remove it")
    return True


def _file_member(path: Path, folder: Path) -> Member:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return Member(folder, str(path.relative_to(folder)), path.stat().st_size, crc)


def _zip_member(info: zipfile.ZipInfo, archive: Path) -> Member:
    if info.file_size > MEMBER_BYTES:
        raise UserError(
            f"{archive / info.filename}: {info.file_size:,} bytes, more than the {MEMBER_BYTES:,} "
            "that an episode may have; remove it, or unzip it and import the folder"
        )
    return Member(archive, info.filename, info.file_size, info.CRC)


def _opened_zip(path: Path) -> zipfile.ZipFile:
    with _zip_errors(str(path)):
        return zipfile.ZipFile(path)


@contextmanager
def _zip_errors(where: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{where}: no such file or folder; check the path") from None
    # truncated; damaged data; encrypted; an unknown compression; unreadable
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise UserError(f"{where}: not readable as a zip ({error}); download it again, or give its folder") from error
