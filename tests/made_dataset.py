"""A small dataset folder without the whole way that leads to one: what `split` writes, of made episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers import random_episode

from lawm_data import files, shards, table4
from lawm_data.episode import Episode
from lawm_data.manifest import NAME, FileEntry, Manifest, SliceEntry

CARD = """---
configs:
- config_name: {slice}
  data_files:
  - split: labeled
    path: [{labeled}]
  - split: unlabeled
    path: [{unlabeled}]
---
Made for a test.
"""


def made_episodes(count: int = 30, env: str = "custom:made", length: int = 40) -> list[Episode]:
    return [random_episode(order, length + order, env=env) for order in range(count)]


def make_dataset(
    folder: Path, episodes: list[Episode], per_shard: int = 8, slice_: str = "medium-replay", note: str = ""
) -> Manifest:
    """Write `folder`: the first fifth labeled, the last four for validation, the rest stripped into withheld files."""
    folder.mkdir(parents=True, exist_ok=True)
    labeled = len(episodes) // 5
    parts = {"labeled": episodes[:labeled], "unlabeled": episodes[labeled:-4], "validation": episodes[-4:]}
    entries: dict[str, FileEntry] = {}
    splits: dict[str, list[str]] = {"withheld": []}
    for split, part in parts.items():
        chunks = [part[start : start + per_shard] for start in range(0, len(part), per_shard)]
        place = f"{slice_}-validation" if split == "validation" else slice_
        splits[split] = [f"{place}/{split}-{i:05d}-of-{len(chunks):05d}.arrow" for i in range(len(chunks))]
        for path, chunk in zip(splits[split], chunks, strict=True):
            withheld = shards.withheld_of(path) if split == "unlabeled" else None
            entries |= shards.write(folder, path, chunk, split != "unlabeled", withheld)
            splits["withheld"] += [withheld] if withheld else []
    listed = {split: ", ".join(paths) for split, paths in splits.items()}
    files.write_text(folder / "README.md", CARD.format(slice=slice_, **listed) + note)
    entries["README.md"] = shards.entry_of(folder / "README.md")
    manifest = _manifest(episodes, slice_, splits, entries, labeled)
    (entry,) = manifest.slices.values()
    told = {split: shards.summary(folder, splits[split], manifest) for split in ("labeled", "unlabeled")}
    manifest = replace(manifest, slices={slice_: replace(entry, summaries=told)})
    files.write_json(folder / NAME, manifest.to_json())
    return manifest


def _manifest(
    episodes: list[Episode], slice_: str, splits: dict[str, list[str]], entries: dict[str, FileEntry], labeled: int
) -> Manifest:
    """Without the summaries of what was written."""
    observation_size = episodes[0].observation.shape[1]
    action = episodes[0].action
    assert action is not None
    own = episodes[:-4]
    counts = {"episodes": len(own), "labeled": labeled, "steps": sum(episode.length for episode in own)}
    returns = [episode.episode_return for episode in own]
    statistics, of_labeled = table4.statistics(returns) | counts, table4.statistics(returns[:labeled])
    return Manifest(
        env=episodes[0].env,
        layout=[("state", observation_size)],
        observation_size=observation_size,
        action_size=action.shape[1],
        repeat=None,
        label_fraction=round(labeled / len(own), 3),
        label_seed=0,
        slices={slice_: SliceEntry({}, True, 100, len(episodes), splits, statistics, of_labeled, {})},
        collected=[],
        credits=[],
        files=entries,
    )
