from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Five days of a load of 0 to 10, every 5 minutes."""
    load = 5 - 5 * np.cos(2 * np.pi * np.arange(5 * 288) / 288)
    path = tmp_path / "load.csv"
    path.write_text("timestamp,value\n" + "".join(f"{300 * i},{value:.4f}\n" for i, value in enumerate(load)))
    return path
