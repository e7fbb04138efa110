"""A trained policy on disk or on the Hub: policy.json says what it is, policy.safetensors holds its parameters.

Nothing is unpickled, and the file of tensors is compared with the size and sha256 in policy.json before it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from lawm_data import files, hub, shards
from lawm_data.errors import UserError
from lawm_data.manifest import LARGEST_SIZE, FileEntry
from lawm_data.parsing import parse
from lawm_data.runs import Origin, Position, Trained
from lawm_train.data import Sizes

NAME, TENSORS = "policy.json", "policy.safetensors"
MAX_BYTES = 1_000_000  # of policy.json
SCHEMA_VERSION = 1
_CURE = "push the policy again"


@dataclass(frozen=True, kw_only=True)
class _File(Trained):
    """The content of policy.json; most of it is the run's config.json."""

    schema_version: int
    phase: int
    update: int
    tensors: FileEntry


@dataclass(frozen=True)
class Exported:
    """description: policy.json, checked; `file`: where its tensors lie, not yet read; `where`: what errors call it.

    cached: whether the file was downloaded, so that a damaged one is removed, to be fetched again.
    """

    description: dict[str, Any]
    file: Path
    where: str
    cached: bool = False

    def tensors(self) -> dict[str, Tensor]:
        """By `<module>.<name>`; UserError when the file is not, byte for byte, the one described."""
        try:
            shards.check_file(self.file, FileEntry(**self.description["tensors"]))
        except UserError:
            again = "run again to fetch it anew; if this repeats, push the policy again" if self.cached else _CURE
            if self.cached:
                hub.remove(self.file)
            raise UserError(
                f"{self.where}: {TENSORS} is not the file that {NAME} describes (size or sha256); {again}"
            ) from None
        try:
            found = safetensors.torch.load_file(self.file)
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"{self.where}: {TENSORS} is not readable as safetensors ({error}); {_CURE}") from None
        if _depth(self.description["settings"]) > len(found):
            raise UserError(f"{self.where}: names more layers than it has tensors; {_CURE}")
        return found


def write(folder: Path, run_config: Mapping[str, Any], position: Position, tensors: Mapping[str, Tensor]) -> Exported:
    """Write both files; `run_config` is a run's config.json."""
    kept = {key: value.contiguous().cpu() for key, value in tensors.items()}
    files.write_bytes(folder / TENSORS, safetensors.torch.save(kept))
    known = {field.name: run_config[field.name] for field in fields(_File) if field.name in run_config}
    entry = asdict(shards.entry_of(folder / TENSORS))
    made = {"schema_version": SCHEMA_VERSION, **position._asdict(), "tensors": entry}
    files.write_json(folder / NAME, {"about": {}, **known, **made})
    return find(str(folder))


def find(where: str) -> Exported:
    """A folder that holds policy.json, or `org/name[@revision]` on the Hub, read at one commit."""
    folder = Path(where)
    if (folder / NAME).is_file():
        return Exported(_description(folder / NAME, where), folder / TENSORS, where)
    hub_id = hub.parse_id(where)
    if folder.exists() or not hub_id:
        raise UserError(f"{where}: no run, no folder with {NAME}, and no Hub id (org/name or org/name@v1)")
    repo = hub_id[0]
    commit = hub.resolve(*hub_id, kind="model")
    path = hub.download(
        repo, commit, NAME, MAX_BYTES, f"holds no {NAME}, so it is no policy of `lawm-train push`", kind="model"
    )
    description = _description(path, where)
    file = hub.download(
        repo, commit, TENSORS, description["tensors"]["bytes"], f"holds no {TENSORS}; {_CURE}", kind="model"
    )
    return Exported(description, file, where, cached=True)


def _description(path: Path, where: str) -> dict[str, Any]:
    """policy.json, every type checked; UserError names the key."""
    place = f"{where}/{NAME}"
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{place}: larger than {MAX_BYTES / 1e6:.0f} MB, so no description of a policy; {_CURE}")
    value = files.read_json(path)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(f"{place}: schema_version is {version!r:.20}, this program reads {SCHEMA_VERSION}; update lawm")
    parse(_File, value, place, _CURE)
    parse(FileEntry, value["tensors"], f"{place}: tensors", _CURE)
    parse(Origin, value["dataset"], f"{place}: dataset", _CURE)
    parse(Sizes, value["sizes"], f"{place}: sizes", _CURE)
    if not all(1 <= value["sizes"][key] <= LARGEST_SIZE for key in ("observation", "action")):
        raise UserError(f"{place}: sizes of observation and action cannot be right; {_CURE}")
    if not _are_bounds(value["about"].get("action_bounds"), value["sizes"]["action"]):
        raise UserError(f"{place}: about.action_bounds are not those of {value['sizes']['action']} columns; {_CURE}")
    return value


def _are_bounds(found: Any, columns: int) -> bool:
    """Whether they are a pair of numbers for each column, or None."""
    pairs = found if isinstance(found, list) else []
    numbers = all(isinstance(pair, list) and [type(x) in (int, float) for x in pair] == [True, True] for pair in pairs)
    return found is None or (numbers and len(pairs) == columns)


def _depth(settings: Any) -> int:
    """The most layers that any part of the settings asks for."""
    if not isinstance(settings, dict):
        return 0
    own = [value for key, value in settings.items() if key.endswith("layers") and isinstance(value, int)]
    return max([0, *own, *(_depth(value) for value in settings.values())])
