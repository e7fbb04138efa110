"""Pages of matplotlib as files."""

from __future__ import annotations

import io
from typing import Any


def png(page: Any) -> bytes:
    """A matplotlib Figure as PNG; the same drawing gives the same bytes."""
    buffer = io.BytesIO()
    page.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
