"""Files appear whole or not at all. Nothing else in the project opens a file for writing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lawm_data.errors import UserError

WORKSPACE = "lawm"  # where --root names no other
PARTIAL = ".partial-"  # prefix of what is still being written
REPLACED = ".replaced-"  # of what makes room for it
_LEFTOVER = re.compile(rf"({re.escape(PARTIAL)}|{re.escape(REPLACED)})[0-9a-f]{{32}}-(.+)")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EROFS, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EBUSY}


@contextlib.contextmanager
def user_errors(path: Path) -> Iterator[None]:
    """Turn 'no space left', 'permission denied' and 'not a directory' into one line that names the path."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        if error.errno in _FULL:
            raise UserError(
                f"{path}: no space left on the disk ({reason}); free some, then run the same command again"
            ) from error
        if error.errno in _FORBIDDEN:
            raise UserError(f"{path}: cannot be written ({reason}); change that, or write elsewhere") from error
        raise


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed and renamed to `path`, else removed."""
    temporary = path.parent / f"{PARTIAL}{uuid.uuid4().hex}-{path.name}"
    try:
        with user_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        with contextlib.suppress(OSError):  # such as a parent that is a file, which is told already
            temporary.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes the place of `path`, else it is removed."""
    temporary = path.parent / f"{PARTIAL}{uuid.uuid4().hex}-{path.name}"
    old = path.parent / f"{REPLACED}{uuid.uuid4().hex}-{path.name}"
    try:
        with user_errors(path):
            temporary.mkdir(parents=True)
            yield temporary
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            _flush(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():  # else `old` is all there is, and `sweep` puts it back
            shutil.rmtree(old, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Rename a folder, then remove it: a kill in between leaves nothing under its name, and the rest to `sweep`."""
    doomed = path.parent / f"{PARTIAL}{uuid.uuid4().hex}-{path.name}"
    os.replace(path, doomed)
    shutil.rmtree(doomed)


def write_bytes(path: Path, data: bytes) -> None:
    with new_file(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Sorted keys and two-space indent: the same value gives the same bytes. NaN is refused (ValueError)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raise UserError when the file is missing or no JSON; NaN, Infinity and what overflows to it are none."""
    try:
        return json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; restore it, or make it again") from None
    except PermissionError:
        raise UserError(f"{path}: may not be read; change its permissions") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); restore it or make it again") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        _refuse_constant(text[:20])
    return value


def append_line(path: Path, line: str) -> None:
    """Append one line to a log. A kill may cut the last line: it stays alone, and readers skip what does not parse."""
    with user_errors(path), open(path, "a+b") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(length - 1, 0))
        whole = length == 0 or file.read() == b"\n"
        file.write((b"" if whole else b"\n") + line.encode() + b"\n")


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what an interrupted `new_file` or `new_folder` left in `folder`, of anything or of `name` alone.

    Call it under the lock. What a kill between the two renames of `new_folder` set aside takes its place again.
    """
    for path in folder.glob(".*"):
        left = _LEFTOVER.fullmatch(path.name)
        if not left or name not in (None, left[2]):
            continue
        place = path.with_name(left[2])
        if left[1] == REPLACED and not place.exists():
            os.replace(path, place)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(workspace: Path) -> Iterator[None]:
    """Hold the workspace's lock; UserError when another process has it."""
    with user_errors(workspace):
        workspace.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(workspace / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(descriptor, workspace)
        yield
    finally:
        os.close(descriptor)


def is_writable(path: Path) -> bool:
    """Whether a file can be written, or made in the folder that it is to be in."""
    there = next(one for one in (path.absolute(), *path.absolute().parents) if one.exists())
    return os.access(there, os.W_OK)


def workspace_of(folder: Path) -> Path | None:
    """The workspace that `folder` lies in, which has recordings and was locked before; None for one that lies apart."""
    parents = Path(os.path.abspath(folder)).parents
    return next((one for one in parents if (one / "raw").is_dir() and (one / ".lock").is_file()), None)


def typed(command: str, workspace: Path) -> str:
    """A command as the user is to type it for this workspace."""
    return command if workspace == Path(WORKSPACE) else f"{command} --root {shlex.quote(str(workspace))}"


def _take(descriptor: int, workspace: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{workspace}: another lawm command is using this workspace; wait for it, or name another with --root"
        ) from None
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(f"{workspace}: cannot be locked ({reason}); name one on a local disk with --root") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
