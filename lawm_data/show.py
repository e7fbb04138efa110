"""One recorded episode as a picture, or as a film of its replay in the simulator.

A replay starts from the seed that the collector gave the episode and executes the recorded actions. The observation
alone does not fix the state (walker's lacks where it stands), and the store keeps no state: what comes out of a replay
is therefore compared with what was recorded, number by number.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from PIL import Image

from lawm_data import envs, files
from lawm_data.episode import Episode
from lawm_data.errors import UserError, reason
from lawm_data.figures import png
from lawm_data.store import Row, Store

FRAME_SECONDS = 0.1  # of simulated time between frames: without a GPU a frame takes about 35 ms to render
HEIGHT, WIDTH = 240, 320
COLORS = 64  # of a film


def show(root: Path, episode_id: str | None, env: str | None, *, video: bool, out: Path | None) -> None:
    """Write the picture (PNG) or film (GIF) of an episode, by default of the one with the highest return."""
    suffix = ".gif" if video else ".png"
    if out and out.suffix != suffix:
        raise UserError(f"--out {out}: expected a name that ends in {suffix}{'' if video else '; .gif with --video'}")
    store = Store(root / "raw")
    row = _row(store, episode_id, env)
    (episode,) = store.read([row])
    meta = store.meta(row.env, row.source)
    path = out or root / "figures" / f"{row.episode_id.replace('/', '-').replace(':', '-')}{suffix}"
    content = film(episode, meta["repeat"]) if video else picture(episode, meta["layout"])
    files.write_bytes(path, content)
    click.echo(f"{path}: {row.episode_id}, {row.length} steps, return {row.episode_return:.1f}")


def picture(episode: Episode, layout: list[tuple[str, int]]) -> bytes:
    """PNG: each part of the observation, the actions and the rewards over the agent steps; same input, same bytes."""
    from matplotlib.figure import Figure

    starts = np.cumsum([0, *(size for _, size in layout)])
    panels = {
        name: episode.observation[:, first : first + size]
        for (name, size), first in zip(layout, starts[:-1], strict=True)
    }
    if episode.action is not None:
        panels["action"] = episode.action
    panels["reward"] = episode.reward[:, None]
    page = Figure(figsize=(10, 1.8 * len(panels) + 0.6), layout="constrained")
    page.suptitle(f"{episode.episode_id}, return {episode.episode_return:.1f}")
    grid = page.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, (name, values) in zip(grid, panels.items(), strict=True):
        axes.plot(values, linewidth=0.8)
        axes.set_ylabel(f"{name} [{values.shape[1]}]")
    grid[-1].set_xlabel("agent step")
    return png(page)


def film(episode: Episode, repeat: int | None) -> bytes:
    """GIF of the episode's replay, in simulated time; UserError when it cannot be replayed or nothing renders here."""
    os.environ.setdefault("MUJOCO_GL", "egl")  # read when dm_control is imported
    if repeat is None or episode.action is None:
        lacking = "actions" if episode.action is None else "simulator"
        raise UserError(f"{episode.episode_id}: no {lacking} to replay it with; leave out --video")
    try:
        env = envs.make(episode.env, repeat)
        env.reset(0)
        env.render(HEIGHT, WIDTH)
    except (ImportError, AttributeError, RuntimeError) as error:  # what EGL, OSMesa and dm_control raise
        raise UserError(
            f"no renderer: MUJOCO_GL={os.environ['MUJOCO_GL']} does not work here ({reason(error)}); install libEGL or "
            "libOSMesa and set MUJOCO_GL to egl, osmesa or glfw, or leave out --video"
        ) from error
    stride = max(1, round(FRAME_SECONDS / env.step_seconds))
    return gif(_frames(episode, env, stride), stride * env.step_seconds)


def gif(frames: Iterator[np.ndarray], seconds: float) -> bytes:
    """An endless animation of frames uint8 [H, W, 3], `seconds` apart, in the colours of the first."""
    first = Image.fromarray(next(frames)).quantize(COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    others = [Image.fromarray(frame).quantize(palette=first, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=round(1000 * seconds), loop=0)
    return buffer.getvalue()


def _frames(episode: Episode, env: envs.SuiteEnv, stride: int) -> Iterator[np.ndarray]:
    """Every stride-th state of the replay."""
    from lawm_data.collect import env_seed

    assert episode.action is not None
    observation = env.reset(env_seed(episode.seed, episode.order))
    for t, recorded in enumerate(episode.observation):
        if not np.array_equal(observation, recorded):
            raise UserError(
                f"{episode.episode_id}: its replay leaves the recording at step {t}; only what `lawm-data collect` "
                "recorded with this version of MuJoCo can be replayed; leave out --video"
            )
        if t % stride == 0:
            yield env.render(HEIGHT, WIDTH)
        if t < episode.length:
            observation = env.step(episode.action[t]).observation


def _row(store: Store, episode_id: str | None, env: str | None) -> Row:
    env = store.only_env(env or (episode_id.split("/")[0] if episode_id else None))
    rows = store.rows(env)
    if not rows:
        step = files.typed(f"lawm-data collect --env {env}", store.root.parent)
        raise UserError(f"{store.root}: no episodes of {env} yet; run `{step}` to go on")
    if episode_id is None:
        return max(rows, key=lambda row: row.episode_return)
    found = [row for row in rows if row.episode_id == episode_id]
    if not found:
        raise UserError(
            f"{store.root}: no episode {episode_id}; there is {rows[0].episode_id} to {rows[-1].episode_id}"
        )
    return found[0]
