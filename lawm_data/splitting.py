"""Raw store -> dataset folder: slices, labels, shards, manifest, card. The folder is what `push` publishes."""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from lawm_data import card, files, labels, shards, slicing, table4
from lawm_data.draw import rank
from lawm_data.episode import Episode
from lawm_data.errors import UserError
from lawm_data.manifest import MAX_BYTES, NAME, FileEntry, Manifest, SliceEntry, folder_name, is_custom
from lawm_data.progress import Bar
from lawm_data.slicing import KEEPER, Config, Slice
from lawm_data.store import Row, Store
from lawm_data.summary import NARROW, Summary

BUFFER_BYTES = 256_000_000  # trajectories read from the store at once, to be written in another order
MEGABYTE = 1_000_000
NUMBER_BYTES = 26  # of a number in a list of the manifest, a line of its own
NAMED = 3  # dimensions in a message
SHARDS_MULTIPLE = 8  # so that readers side by side share the files of a large split evenly


def split(root: Path, env: str | None, config: Config, out: Path | None) -> None:
    """Write the dataset of `env` to `out`, or to `root`/dataset; an old one is replaced once the new one verifies."""
    store = Store(root / "raw")
    env = store.only_env(env)
    place = out or root / "dataset" / folder_name(env)
    target = place.resolve()
    _check_target(target, env, store.root.resolve())
    everything = store.rows(env)
    rows = _with_actions(store, slicing.distinct(everything))
    if twice := len(everything) - len(rows):
        click.echo(
            f"{twice} of {len(everything)} episodes are recordings that are there under another name; each counts once"
        )
    if short := sum(row.length < config.min_steps for row in rows):
        click.echo(f"{short} of {len(rows)} episodes are shorter than split.min_steps, {config.min_steps}; left out")
    parts = slicing.cut(rows, env, config)
    for part in parts.values():
        if part.displaced:
            click.echo(
                f"{part.name}: imported whole, so {part.displaced} episodes of the history that would fit are not in "
                "it; import without --slice to draw from both"
            )
    slices = _large_enough(parts, env, config)
    labeled = {name: _labeled(part, config) for name, part in slices.items()}
    empty = _empty_manifest(store, env, slices, config)
    _check_size(empty, len(slices))
    files.sweep(target.parent, target.name)  # no others: another workspace may be writing beside --out
    with files.new_folder(target) as folder:
        manifest = empty
        for name, part in slices.items():
            manifest = _add_slice(folder, manifest, store, part, labeled[name], config)
        _write_card(folder, manifest, slices, labeled)
        shards.verify(folder)
    _report(manifest, slices, config.validation)
    if not any(entry.statistics["labeled"] for entry in manifest.slices.values()):
        click.echo(
            f"{place}: verified; no episode has actions, and every method needs some: import such, and split again"
        )
        return
    typed = shlex.quote(str(place))
    train = files.typed(f"lawm-train --hub-dataset {typed}", root)
    click.echo(f"{place}: verified; next: lawm-data push {typed}, or {train}")


def _with_actions(store: Store, rows: list[Row]) -> list[Row]:
    """Of a recording that is there with its actions and without, the one with; the others as they are."""
    kinds: dict[tuple[object, ...], set[bool]] = {}
    for row in rows:
        kinds.setdefault(_alike(row), set()).add(row.has_action)
    mixed = [row for row in rows if len(kinds[_alike(row)]) == 2]
    content = {
        row: hashlib.sha256(episode.observation.tobytes() + episode.reward.tobytes()).digest()
        for row, episode in zip(mixed, store.read(mixed), strict=True)
    }
    known = {(row.slice_name, content[row]) for row in mixed if row.has_action}
    return [row for row in rows if row.has_action or (row.slice_name, content.get(row)) not in known]


def _alike(row: Row) -> tuple[object, ...]:
    """What the same recording has in common, with its actions or without."""
    return row.length, row.episode_return


def _labeled(part: Slice, config: Config) -> set[str]:
    """The ids of the episodes of a slice that keep their actions."""
    known = [row.episode_id for row in part.rows if row.has_action]
    try:
        return labels.drawn(known, len(part.rows), config.label_frac, config.label_seed)
    except UserError as error:
        raise UserError(f"slice {part.name}: {error}") from None


def _check_target(target: Path, env: str, raw: Path) -> None:
    """Only an old dataset of the env is replaced, and only one that holds nothing else, such as notes or a `.git`."""
    if target.is_relative_to(raw):
        raise UserError(f"{target}: lies among the recordings; name a folder outside {raw} with --out")
    names = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if Path.cwd().is_relative_to(target):  # it would be replaced under the shell that stands in it
        raise UserError(f"{target}: holds the folder that you are in; run the command from outside, or name another")
    if target.is_file() or (names and NAME not in names) or any(target.rglob(".*")):
        raise UserError(f"{target}: holds something else than a dataset; name a new folder with --out")
    if not names:
        return
    try:
        old = Manifest.load(target)
    except UserError as error:
        raise UserError(f"{error}; before that, remove the folder, or name a new one with --out") from None
    if old.env != env:
        raise UserError(f"{target}: holds a dataset of {old.env}, not of {env}; name a new folder with --out")
    shards.check_extra(target, old)


def _large_enough(slices: dict[str, Slice], env: str, config: Config) -> dict[str, Slice]:
    """Leave out what is too small, and say so; UserError when nothing is left or, if strict, when anything is short."""
    more = "import" if is_custom(env) else "collect or import"
    short = {name: part for name, part in slices.items() if not part.complete}
    if config.strict and short:
        counts = "; ".join(_shortfall(part) for part in short.values())
        raise UserError(f"{counts}; {more} more episodes, lower split.quota, or leave out --strict")
    kept = {name: part for name, part in slices.items() if part.found >= config.min_episodes}
    for part in slices.values():
        if part.name not in kept:
            click.echo(f"{_shortfall(part)}; left out, as fewer than {config.min_episodes}: {more} more such episodes")
    if not kept:
        raise UserError(
            f"no slice has {config.min_episodes} episodes; {more} more of them, or lower split.min_episodes"
        )
    return kept


def _empty_manifest(store: Store, env: str, slices: dict[str, Slice], config: Config) -> Manifest:
    """What holds for the whole dataset; the files are yet to come."""
    used = [row for part in slices.values() for row in (*part.rows, *part.validation_rows)]
    unique = {row.episode_id: row for row in used}
    sources = sorted({row.source for row in used})
    metas = [store.meta(env, source) for source in sources]
    collected = [
        {
            "source": source,
            "seeds": sorted({row.seed for row in used if row.source == source}),
            "episodes": sum(row.source == source for row in unique.values()),
            "collected": meta["collected"],
        }
        for source, meta in zip(sources, metas, strict=True)
    ]
    layout = [(name, size) for name, size in metas[0]["layout"]]
    bounds = next((meta["action_bounds"] for meta in metas if meta.get("action_bounds")), None)
    return Manifest(
        env=env,
        layout=layout,
        observation_size=sum(size for _, size in layout),
        action_size=metas[0]["action_size"],
        repeat=metas[0]["repeat"],
        label_fraction=config.label_frac,
        label_seed=config.label_seed,
        slices={},
        collected=collected,
        credits=sorted({meta["credits"] for meta in metas if meta["credits"]}),
        files={},
        action_bounds=bounds and [(low, high) for low, high in bounds],
    )


def _check_size(manifest: Manifest, slices: int) -> None:
    """The manifest holds two moments of each number that is observed, of up to two splits of each slice."""
    if 4 * NUMBER_BYTES * slices * manifest.observation_size > MAX_BYTES:
        raise UserError(
            f"{manifest.env}: observations of {manifest.observation_size:,} numbers in {slices} slices are more than a "
            f"manifest holds, which is at most {MAX_BYTES / 1e6:g} MB; record fewer numbers, or split into fewer slices"
        )


def _add_slice(
    folder: Path, manifest: Manifest, store: Store, part: Slice, labeled: set[str], config: Config
) -> Manifest:
    """Write the shards of one slice; return the manifest with the slice and its files."""
    groups = {
        "labeled": [row for row in part.rows if row.episode_id in labeled],
        "unlabeled": [row for row in part.rows if row.episode_id not in labeled],
        "validation": part.validation_rows,
    }
    written: dict[str, FileEntry] = {}
    splits: dict[str, list[str]] = {}
    for name, rows in groups.items():
        ordered = sorted(rows, key=lambda row: rank("shard", config.slice_seed, row.episode_id))
        entries = _write_split(folder, manifest, store, part.name, name, ordered, config)
        written |= entries
        for path in sorted(entries):
            splits.setdefault("withheld" if "/withheld-" in path else name, []).append(path)
    manifest = replace(manifest, files=manifest.files | written)
    counts = {"episodes": len(part.rows), "labeled": len(labeled), "steps": sum(row.length for row in part.rows)}
    entry = SliceEntry(
        rule=part.rule,
        complete=part.complete,
        wanted=part.wanted,
        found=part.found,
        splits=splits,
        statistics=table4.statistics([row.episode_return for row in part.rows]) | counts,
        labeled_statistics=table4.statistics([row.episode_return for row in groups["labeled"]]),
        summaries={
            name: shards.summary(folder, splits[name], manifest) for name in ("labeled", "unlabeled") if name in splits
        },
    )
    return replace(manifest, slices=manifest.slices | {part.name: entry})


def _write_split(
    folder: Path, manifest: Manifest, store: Store, slice_: str, split_name: str, rows: list[Row], config: Config
) -> dict[str, FileEntry]:
    """Write `rows` in their order as shards of about the target size, withheld actions beside the unlabeled."""
    sizes = [_bytes(row, manifest) for row in rows]
    count = math.ceil(sum(sizes) / (config.shard_mb * MEGABYTE))
    if count > 1:
        count = min(math.ceil(count / SHARDS_MULTIPLE) * SHARDS_MULTIPLE, len(rows))
    prefix = f"{slice_}-validation" if split_name == "validation" else slice_
    episodes = _in_order(store, rows, sizes)
    withhold = split_name == "unlabeled" and any(row.has_action for row in rows)
    entries: dict[str, FileEntry] = {}
    with Bar(total=len(rows), desc=f"split {slice_} {split_name}", unit="episode", disable=None) as bar:
        for k in range(count):
            size = len(rows) * (k + 1) // count - len(rows) * k // count
            name = f"{prefix}/{split_name}-{k:05d}-of-{count:05d}.arrow"
            withheld = shards.withheld_of(name) if withhold else None
            entries |= shards.write(folder, name, _counted(episodes, size, bar), split_name != "unlabeled", withheld)
    return entries


def _counted(episodes: Iterator[Episode], count: int, bar: Any) -> Iterator[Episode]:
    for episode in islice(episodes, count):
        yield episode
        bar.update()


def _in_order(store: Store, rows: Sequence[Row], sizes: Sequence[int]) -> Iterator[Episode]:
    """The episodes in the order of `rows`, read in the store's order, a bufferful at a time."""
    buffer = np.cumsum(sizes) // BUFFER_BYTES
    for _, group in groupby(zip(buffer, rows, strict=True), key=lambda pair: pair[0]):
        wanted = [row for _, row in group]
        in_store = sorted(wanted, key=lambda row: (row.source, row.seed, row.order))
        found = {episode.episode_id: episode for episode in store.read(in_store)}
        for row in wanted:
            yield found.pop(row.episode_id)


def _bytes(row: Row, manifest: Manifest) -> int:
    action_size = manifest.action_size * row.has_action
    return 4 * ((row.length + 1) * manifest.observation_size + row.length * (action_size + 1))


def _write_card(folder: Path, manifest: Manifest, slices: dict[str, Slice], labeled: dict[str, set[str]]) -> None:
    """Write figure, card and, last, the manifest."""
    returns = {
        name: (
            [row.episode_return for row in part.rows],
            [row.episode_return for row in part.rows if row.episode_id in labeled[name]],
        )
        for name, part in slices.items()
    }
    files.write_bytes(folder / card.FIGURE, card.figure(returns))
    files.write_text(folder / "README.md", card.render(manifest))
    entries = {name: shards.entry_of(folder / name) for name in (card.FIGURE, "README.md")}
    files.write_json(folder / NAME, replace(manifest, files=manifest.files | entries).to_json())


def _shortfall(part: Slice) -> str:
    bounds = card.bounds(part.rule)
    return f"{part.name}: {part.found} of {part.wanted} episodes{' with ' if bounds else ''}{bounds}"


def _held_out(part: Slice, wanted: int) -> str:
    """How many trajectories lie beside the slice, and why no more."""
    count = len(part.validation_rows)
    held_out = f"{100 * slicing.HELD_OUT:g}% of those with actions at most"
    why = "no more with actions were left over" if count > 0 and part.found == len(part.rows) else held_out
    return f"{count} for validation" + (f" ({wanted} were asked for; {why})" if count < wanted else "")


def _report_narrow(name: str, entry: SliceEntry, manifest: Manifest) -> None:
    whole = Summary.joined(entry.summaries.values(), manifest.observation_size)
    if not (narrow := whole.narrow):
        return
    parts = [f"{part}[{k}]" if size > 1 else part for part, size in manifest.layout for k in range(size)]
    named = ", ".join(f"{parts[k]} ({whole.std[k]:.2g})" for k in narrow[:NAMED])
    others = f" and {len(narrow) - NAMED} more" if len(narrow) > NAMED else ""
    click.echo(
        f"{name}: observed with a standard deviation below {NARROW:g}, so not scaled up: {named}{others}; record "
        "them in smaller units"
    )


def _report(manifest: Manifest, slices: dict[str, Slice], validation: int) -> None:
    for name, entry in manifest.slices.items():
        counts = entry.statistics
        labeled = f", labeled {entry.labeled_statistics['mean']:.1f}" if entry.labeled_statistics else ""
        click.echo(
            f"{_shortfall(slices[name])}; {_held_out(slices[name], validation)}; "
            f"{counts['labeled']} of {counts['episodes']} labeled; mean return {counts['mean']:.1f}{labeled}"
        )
        _report_narrow(name, entry, manifest)
    if short := ", ".join(name for name, part in slices.items() if not part.complete):
        kept = any(one["source"] == KEEPER for one in manifest.collected)
        ways = f"more --episodes or --seeds{', --top-up for medium and expert' if kept else ''}"
        fill = "lawm-data import" if is_custom(manifest.env) else f"lawm-data collect ({ways}), or import"
        click.echo(f"short of the quota: {short}; filled by {fill}")
    if manifest.label_fraction is None:
        strip = "" if manifest.few_labels else "; --label-frac 0.05 keeps those of 5%"
        click.echo(f"actions are kept wherever they were recorded{strip}")
