"""`lawm-train push`: a run's policy as a model repository, its card says where it comes from and what it scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from lawm_data import card, files, publish, shards
from lawm_data.errors import UserError
from lawm_data.manifest import folder_name
from lawm_data.runs import Run, trained
from lawm_train import plots, policy, pretrained, results
from lawm_train.record import PRIOR_PHASE, Evaluation, is_prior

CURVE = "curves.png"
SAME = ("env", "slice", "method", "oracle", "label_frac", "label_seed", "seed")  # of policies in one repository


def push(path: Path, repo: str | None, *, private: bool, tag: str | None) -> str:
    """Publish the last checkpoint of a run in one commit; return its sha. UserError as `publish.publish`."""
    run = trained(path)
    repo = repo or f"{publish.user()}/lawm-{_fit_for_the_hub(run.name)}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write(run, folder, repo)
        entries = {file.name: shards.entry_of(file) for file in sorted(folder.iterdir())}
        same = {key: run.config[key] for key in SAME}
        content = publish.Content(folder, entries, "model", pretrained.NAME, pretrained.SCHEMA_VERSION, same)
        commit = publish.publish(content, repo, private=private, tag=tag)
    click.echo(f'next: Policy.from_pretrained("{repo}{f"@{tag}" if tag else ""}"), from lawm_train.policy')
    return commit


def _fit_for_the_hub(name: str) -> str:
    """The name of a run; UserError where no repository can be called so."""
    try:
        validate_repo_id(f"lawm-{name}")
    except HFValidationError:
        raise UserError(f"{name}: the Hub takes no such name for a repository; name one with --repo") from None
    return name


def write(run: Run, folder: Path, repo: str) -> None:
    """The files of the repository: parameters, description, card, and the curve of a run that was evaluated."""
    exported = policy.export(run, folder)
    if state := _unfinished(run):
        click.echo(f"{run.path}: {state}; what is pushed is its last checkpoint")
    records = [record for record in results.of_run(run.path) if not is_prior(record.method)]
    scores = [evaluation for record in records for evaluation in record.evaluations]
    if scores:
        files.write_bytes(folder / CURVE, plots.curves(records))
    files.write_text(folder / "README.md", render(exported.description, scores, repo, state))


def _unfinished(run: Run) -> str:
    """Why the last checkpoint is not the end of the training; empty where it is."""
    if run.stopped:
        return "its training was stopped, as its numbers were no longer finite"
    phases, at = results.phases_of(run.metrics()), run.newest.phase
    if at < len(phases) and phases[at] in (results.IDM_PHASE, PRIOR_PHASE):
        return f"these are of its {phases[at]}, and the agent's training has not begun"
    return "" if run.finished else "its training has not ended"


def render(description: dict[str, Any], scores: list[Evaluation], repo: str, state: str = "") -> str:
    """README.md of a model repository: metadata for the Hub, then the page for people.

    state: what there is to say of a training that has not come to its end.
    """
    header = yaml.safe_dump(_metadata(description, scores, repo), sort_keys=False, allow_unicode=True, width=120)
    score = _scores(scores, simulated=description["repeat"] is not None)
    sections = [_introduction(description), _use(description, repo), score, _training(description, state)]
    return f"---\n{header}---\n" + "\n".join([*sections, card.citation()])


def _metadata(description: dict[str, Any], scores: list[Evaluation], repo: str) -> dict[str, Any]:
    dataset = description["about"].get("dataset")
    metadata: dict[str, Any] = {
        "license": "other",  # the episodes that it was trained on keep their authors' terms
        "library_name": "lawm",
        "pipeline_tag": "reinforcement-learning",
        "tags": ["offline-rl", "world-model", "latent-actions", folder_name(description["env"])],
        "datasets": [dataset] if dataset else [],
    }
    last = scores[-1] if scores else None
    if last and last.update == description["update"]:  # else no score is of these parameters
        place = f"{description['env']} {description['slice']}"
        metric = {
            "type": "mean_reward",
            "name": f"return over {len(last.returns)} episodes",
            "value": round(last.mean, 1),
        }
        task = {"type": "reinforcement-learning"}
        result = {"task": task, "dataset": {"name": place, "type": dataset or description["env"]}, "metrics": [metric]}
        metadata["model-index"] = [{"name": repo.split("/")[-1], "results": [result]}]
    return metadata


def _introduction(description: dict[str, Any]) -> str:
    few = description["label_frac"] is not None and not description["oracle"]
    return f"""# {description["env"]}: a policy from trajectories{" with few action labels" if few else ""}

Trained with `{description["method"]}` on slice `{description["slice"]}`, of which {description["labeled"]} trajectories
have actions ({_labels(description)}); seed {description["seed"]}.
"""


def _labels(description: dict[str, Any]) -> str:
    """How they were chosen."""
    if description["oracle"]:
        return "an oracle: the withheld ones were given back"
    fraction = description["label_frac"]
    if fraction is None:
        return "all that were recorded with actions"
    return f"{100 * fraction:g}% of all, label seed {description['label_seed']}"


def _use(description: dict[str, Any], repo: str) -> str:
    sizes, layout = description["sizes"], description["about"].get("layout", [])
    parts = f": {', '.join(f'`{name}` {size}' for name, size in layout)}" if layout else ""
    unscaled = "command = policy.unscale_action(action)  # in the units of the recording\n"
    command = unscaled if description["about"].get("action_bounds") else ""
    repeat = description["repeat"]
    held = f" Each action is held for {repeat} simulator steps." if repeat else ""
    return f"""## Use

```python
from lawm_train.policy import Policy

policy = Policy.from_pretrained("{repo}")
policy.reset()  # before each episode
action = policy(observation)  # float32 [{sizes["observation"]}] -> [{sizes["action"]}] in [-1, 1]; batches too
{command}```

The observation is float32 [{sizes["observation"]}]{parts}. The policy carries its state from call to call.{held}
"""


def _scores(scores: list[Evaluation], simulated: bool) -> str:
    if not scores:
        reason = "the training was not that far yet" if simulated else "no simulator made the data"
        return f"## Scores\n\nNot evaluated: {reason}.\n"
    lines = ["## Scores", "", "| update | return, mean | episodes |", "|---:|---:|---:|"]
    lines += [f"| {point.update} | {point.mean:.1f} | {len(point.returns)} |" for point in scores]
    return "\n".join([*lines, "", f"![return while it trained]({CURVE})", ""])


def _training(description: dict[str, Any], state: str) -> str:
    dataset, about = description["dataset"], description["about"]
    name = about.get("dataset")
    place = f"[{name}](https://huggingface.co/datasets/{name}) at commit `{dataset['revision']}`" if name else "local"
    return f"""## Training

- checkpoint: after {description["update"]} updates{f"; {state}" if state else ""}
- dataset: {place}; digest `{dataset["digest"]}`
- code: commit `{description["code"] or "of a release"}`
- all settings: `{pretrained.NAME}`
"""
