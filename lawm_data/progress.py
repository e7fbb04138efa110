"""Progress bars with rate and time left."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from tqdm import tqdm

FILE_INTERVAL = 30.0  # seconds from one line of a bar to the next where they go into a file


class Bar(tqdm):
    """A tqdm bar that draws ten times a second on a terminal, and seldom into a file, which keeps every line."""

    def __init__(self, *args: Any, **options: Any):
        if sys.stderr is None:  # closed by who started this
            options["disable"] = True
        elif not sys.stderr.isatty():
            options |= {"mininterval": FILE_INTERVAL, "maxinterval": FILE_INTERVAL, "miniters": 1}
        super().__init__(*args, dynamic_ncols=True, **options)
        self.said = -math.inf

    def say(self, text: str) -> None:
        """Put `text` behind the bar: at once, or with its next line where it was drawn just now."""
        if self.disable:
            return
        now = time.time()
        due = now - max(self.said, self.last_print_t) >= self.mininterval
        if due:
            self.said = now
        self.set_postfix_str(text, refresh=due)
