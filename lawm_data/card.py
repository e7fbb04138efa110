"""The dataset card, its return statistics (the paper's Table 4) and its histograms (Figure 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from lawm_data import shards, table4
from lawm_data.figures import png
from lawm_data.manifest import DEFAULT_SLICE, Manifest, folder_name, is_custom
from lawm_data.table4 import COLUMNS

FIGURE = "figures/returns.png"
BIBTEX = """@article{alles2025lawm,
  title   = {Latent Action World Models for Control with Unlabeled Trajectories},
  author  = {Alles, Marvin and Zhang, Xingyuan and van der Smagt, Patrick and Becker-Ehmck, Philip},
  journal = {arXiv preprint arXiv:2512.10016},
  year    = {2025},
}
"""
Returns = tuple[Sequence[float], Sequence[float]]
"""Of all trajectories, and of the labeled ones among them."""
_EPISODE = "o_0 --a_0--> o_1 (r_0) --a_1--> o_2 (r_1) ... --a_{T-1}--> o_T (r_{T-1})"


def figure(*datasets: Mapping[str, Returns]) -> bytes:
    """PNG with a row of histograms a dataset, one histogram a slice. The same returns give the same bytes."""
    from matplotlib.figure import Figure

    columns = max(map(len, datasets))
    page = Figure(figsize=(4 * columns, 3 * len(datasets)), layout="constrained")
    grid = page.subplots(len(datasets), columns, squeeze=False)
    for panels, returns in zip(grid, datasets, strict=True):
        _histograms(panels, returns)
    return png(page)


def _histograms(panels: Sequence[Any], returns: Mapping[str, Returns]) -> None:
    for axes in panels[len(returns) :]:
        axes.set_axis_off()
    for axes, (name, (every, labeled)) in zip(panels, returns.items(), strict=False):
        edges = np.histogram_bin_edges(every, bins=40, range=_range(every))
        axes.hist(every, edges, color="#9db4c8", label=f"all ({len(every)})")
        axes.hist(labeled, edges, color="#c8553d", label=f"labeled ({len(labeled)})")
        axes.set(title=name, xlabel="return", ylabel="trajectories")
        axes.legend(frameon=False)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Of the bins: about returns that are the same but for rounding, wide enough for as many."""
    low, high = min(values), max(values)
    least = 1e-6 * max(abs(low), abs(high))
    return (low, high) if high - low > least else (low - least - 0.5, high + least + 0.5)


def render(manifest: Manifest) -> str:
    """README.md of the dataset folder: `configs:` for plain `datasets`, then the page for people."""
    header = yaml.safe_dump(_metadata(manifest), sort_keys=False, allow_unicode=True, width=120)
    sections = [_introduction(manifest), _loading(manifest), _returns(manifest), _schema(manifest), _origin(manifest)]
    return f"---\n{header}---\n" + "\n".join([*sections, citation()])


def citation() -> str:
    """The section that names the paper."""
    return f"## Citation\n\n```bibtex\n{BIBTEX}```\n"


def _metadata(manifest: Manifest) -> dict[str, Any]:
    episodes = sum(int(entry.statistics["episodes"]) for entry in manifest.slices.values())
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    configs = _configs(manifest)
    simulator = [] if is_custom(manifest.env) else ["dm_control"]
    return {
        "license": "other",  # imported episodes keep their authors' terms, which no file of theirs states
        "pretty_name": f"LAWM {manifest.env}",
        "task_categories": ["reinforcement-learning"],
        "tags": ["offline-rl", "world-model", "latent-actions", *simulator, folder_name(manifest.env)],
        "size_categories": [next((name for limit, name in sizes if episodes < limit), "n>1M")],
        "configs": configs,
        "dataset_info": [_information(manifest, config) for config in configs],
    }


def _information(manifest: Manifest, config: Mapping[str, Any]) -> dict[str, Any]:
    """Features and sizes of a config, as `datasets` writes them."""
    splits = []
    for part in config["data_files"]:
        entries = [manifest.files[path] for path in part["path"]]
        size, rows = sum(entry.bytes for entry in entries), sum(entry.rows for entry in entries)
        splits.append({"name": part["split"], "num_bytes": size, "num_examples": rows})
    total = sum(split["num_bytes"] for split in splits)
    sizes = {"splits": splits, "download_size": total, "dataset_size": total}
    return {"config_name": config["config_name"], "features": features(), **sizes}


def features() -> list[dict[str, str]]:
    """The columns of `shards.SCHEMA` in the words of `datasets`, which has two names of its own."""
    own = {"double": "float64", "float": "float32"}

    def named(kind: pa.DataType) -> str:
        return own.get(str(kind), str(kind))

    return [
        {"name": column.name, "list": named(column.type.value_type)}
        if pa.types.is_list(column.type)
        else {"name": column.name, "dtype": named(column.type)}
        for column in shards.SCHEMA
    ]


def _configs(manifest: Manifest) -> list[dict[str, Any]]:
    """Withheld actions are no config: whoever loads the dataset does not get them by accident."""
    configs: list[dict[str, Any]] = []
    for name in _ordered(manifest):
        splits = manifest.slices[name].splits
        for config, wanted in ((name, ("labeled", "unlabeled")), (f"{name}-validation", ("validation",))):
            data_files = [{"split": split, "path": splits[split]} for split in wanted if splits.get(split)]
            if data_files:
                configs.append({"config_name": config, "data_files": data_files})
    configs[0]["default"] = True
    return configs


def _ordered(manifest: Manifest) -> list[str]:
    """The slices, the one first that `datasets` is to load by default."""
    return sorted(manifest.slices, key=lambda name: (name != DEFAULT_SLICE, name))


def _introduction(manifest: Manifest) -> str:
    few = manifest.few_labels
    lines = [
        f"# {manifest.env}: {'trajectories with few action labels' if few else 'recorded trajectories'}",
        "",
        f"Recorded trajectories of `{manifest.env}` for learning a latent-action world model"
        f"{': most come without their actions' if few else ''}.",
        "",
    ]
    if manifest.label_fraction is None:
        lines += ["No label fraction was asked for: every trajectory that has actions keeps them.", ""]
    else:
        fraction = f"{100 * manifest.label_fraction:g}%"
        lines += [f"Of each slice {fraction} keep their actions, drawn with label seed {manifest.label_seed}:", ""]
    for name, entry in manifest.slices.items():
        counts = f"{entry.statistics['labeled']} of {entry.statistics['episodes']} trajectories labeled"
        state = "complete" if entry.complete else f"incomplete: {entry.found} of {entry.wanted} found"
        lines.append(f"- `{name}`: {counts}; {_rule(entry.rule)}; {state}")
    if manifest.label_fraction is not None and len(manifest.slices) > 1:
        lines += ["", "Slices overlap: what is hidden in one may be labeled in another, so train on one slice only."]
    return "\n".join([*lines, ""])


def bounds(rule: Mapping[str, Any]) -> str:
    """`return >= 275 and <= 700`, or nothing where the rule sets no bound."""
    signs = {"min_return": ">=", "max_return": "<="}
    parts = [f"{sign} {rule[key]:g}" for key, sign in signs.items() if key in rule]
    return f"return {' and '.join(parts)}" if parts else ""


def _rule(rule: Mapping[str, Any]) -> str:
    history = {
        "all": "of the whole history",
        "trailing": "of each collector's history up to where the mean return of its last 20 episodes exceeds that",
    }
    return f"{bounds(rule) or 'any return'}, {history.get(rule['history'], rule['history'])}"


def _loading(manifest: Manifest) -> str:
    name = _ordered(manifest)[0]
    split = next(iter(split for split in ("labeled", "unlabeled") if manifest.slices[name].splits.get(split)))
    return f"""## Load

```python
from datasets import load_dataset

rows = load_dataset("THIS_REPOSITORY", "{name}", split="{split}", streaming=True)
row = next(iter(rows.with_format("numpy")))
observation = row["observation"].reshape(-1, {manifest.observation_size})  # [T + 1, {manifest.observation_size}]
```

Train on it: `lawm-train --hub-dataset THIS_REPOSITORY --slice {name}`
"""


def _returns(manifest: Manifest) -> str:
    lines = [
        "## Returns",
        "",
        f"| slice | trajectories | {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * (len(COLUMNS) + 1)}",
    ]
    for name, entry in manifest.slices.items():
        lines.append(_row(name, int(entry.statistics["episodes"]), entry.statistics))
        if entry.labeled_statistics:
            lines.append(_row(f"{name}, labeled", int(entry.statistics["labeled"]), entry.labeled_statistics))
        if paper := table4.paper(manifest.env, name):
            lines.append(_row(f"{name}, the paper's Table 4", table4.EPISODES, paper))
            lines.append(_row(f"{name}, difference", "", table4.difference(entry.statistics, paper), sign="+"))
    return "\n".join([*lines, "", f"![histograms of the returns]({FIGURE})", ""])


def _row(name: str, count: int | str, row: Mapping[str, float], sign: str = "") -> str:
    return f"| {name} | {count} | " + " | ".join(f"{row[column]:{sign}.1f}" for column in COLUMNS) + " |"


def _schema(manifest: Manifest) -> str:
    layout = ", ".join(f"`{name}` {size}" for name, size in manifest.layout)
    repeat = "unknown" if manifest.repeat is None else manifest.repeat
    return f"""## Rows

One row is one trajectory of T agent steps (action repeat {repeat}), its arrays flattened:

    {_EPISODE}

| column | type | |
|---|---|---|
| episode_id, source, seed, order | string, string, int64, int64 | who recorded it, and its place in that history |
| length | int32 | T |
| episode_return | float64 | sum of the rewards |
| labeled | bool | whether `action` is there |
| terminal | bool | whether the last observation is a true end; a time limit is not |
| observation | list of float32 | [T + 1, {manifest.observation_size}]: {layout} |
| action | list of float32 or null | [T, {manifest.action_size}] in [-1, 1]; row t leads from observation t to t + 1 |
| reward | list of float32 | [T]; row t is earned on the way to observation t + 1 |

`lawm.json` holds the sha256 of every file and the rule of every slice. The splits `validation` lie outside the slices
and are for diagnostics and for choosing settings.
"""


def _origin(manifest: Manifest) -> str:
    lines = ["## How it was recorded", ""]
    for one in manifest.collected:
        seeds = ", ".join(map(str, one["seeds"]))
        lines.append(f"- `{one['source']}`, seeds {seeds}, {one['episodes']} episodes: {one['collected']}")
    lines += ["", "Licence: CC BY 4.0 for what this project recorded; imported episodes keep their authors' terms."]
    if manifest.credits:
        lines += ["", "## Credits", "", *(f"- {credit}" for credit in manifest.credits)]
    return "\n".join([*lines, ""])
