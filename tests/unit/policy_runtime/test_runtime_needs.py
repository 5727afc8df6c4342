from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from policy_runtime.bundle import write_bundle

ROOT = Path(__file__).parents[3]

SCRIPT = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"numpy", "onnxruntime", "policy_runtime"}:
            raise ModuleNotFoundError(f"{name} is not part of the runtime", name=name)

root, bundle = sys.argv[1:]
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, root)
import policy_runtime

policy = policy_runtime.Policy(policy_runtime.read_bundle(bundle))
history = {"load": [6000.0] * 60, "failed": [0] * 60, "active": [20] * 60, "pending": [0] * 60}
record = policy_runtime.decide(policy, {"timestamp": "2026-03-02T10:00:00Z", **history})
assert record["fallback"] is False and record["delta"] == 3, record
tops = {name.partition(".")[0] for name, module in sys.modules.items() if getattr(module, "__file__", None)}
print(*sorted(tops - sys.stdlib_module_names))
"""


def test_a_bare_interpreter_with_numpy_and_onnxruntime_decides(tmp_path, learned_bundle) -> None:
    write_bundle(learned_bundle([0, 0, 0, 0, 1, 0]), tmp_path / "model.tar.gz")
    run = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, str(ROOT), str(tmp_path / "model.tar.gz")],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key == "PATH"},
    )
    assert run.returncode == 0, run.stderr
    imported = set(run.stdout.split())
    assert {"numpy", "onnxruntime", "policy_runtime"} <= imported
    assert {name for name in imported if not name.startswith("_")} == {"numpy", "onnxruntime", "policy_runtime"}
