"""Measure speed and memory, and print one Markdown table for recipes/RESULTS.md (`make bench`).

Everything is made on the spot in a temporary folder, which takes three times `--gb` of disk (TMPDIR says where).
Nothing is asserted: figures depend on the machine, which the first line names. Let it be quiet meanwhile.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import click
import stages
import transfer

from lawm_data import files
from lawm_data.bench import echoed, header, markdown


@click.command()
@click.option("--gb", type=click.FloatRange(0.01), default=0.5, show_default=True, help="size of the made episodes")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="of each measurement")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="of torch")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="write the table there too")
def main(gb: float, repeats: int, threads: int, out: Path | None) -> None:
    """Measure every stage; takes minutes."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="lawm-bench-") as name:
        folder = Path(name)
        # read when huggingface_hub is first imported, here or by a command
        os.environ |= {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
        rows = list(echoed(stages.rows(folder, gb, repeats)))
        rows += echoed(transfer.rows(stages.dataset_of(folder), folder / "transfer", repeats))

        # only now: what this process holds would count as memory of the commands that `stages` starts
        import collecting
        import ratios
        import torch
        from learning import Bench

        rows += echoed(collecting.rows(repeats))
        torch.set_num_threads(threads)
        learning = Bench(stages.dataset_of(folder), stages.SLICE, repeats)
        rows += echoed(learning.rows())
        torch.set_num_threads(1)  # processor time of several threads says nothing
        rows += echoed(ratios.rows(learning))
    text = markdown(header(load, threads), rows)
    click.echo(text)
    if out:
        files.write_text(out, text)


if __name__ == "__main__":
    main()
