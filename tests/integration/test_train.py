"""Training as SageMaker runs it: a process, folders, signals, exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from policy_runtime.bundle import Bundle, Interface, read_bundle
from policy_runtime.session import OnnxPolicy
from training_src.metrics import parse
from training_src.presets import load_preset
from training_src.toolkits.checkpoint import load_checkpoint

REPOSITORY = Path(__file__).parents[2]
REAL_TRACE = REPOSITORY.parent / "shared" / "traces" / "aws_elb_request_count_5min.csv"
SMALL = {
    "preset": "smoke",
    "gamma": "0.99",
    "total_steps": "6000",  # not a whole number of rollouts of 256
    "episode_steps": "300",
    "evaluation_interval_steps": "2048",
    "evaluation_episodes": "2",
    "checkpoint_interval_steps": "512",
}
OTHER = {
    "preset": "smoke",
    "reward": "reward",
    "n_envs": "4",
    "n_steps": "32",
    "total_steps": "1024",
    "evaluation_episodes": "2",
    "checkpoint_interval_steps": "512",
}
ENVIRONMENTS = '''
import gymnasium as gym
import numpy as np


class Corridor(gym.Env):
    """Walk to the middle of a corridor, by steps to the left or right or by any stride."""

    def __init__(self, stride: bool = False) -> None:
        self.observation_space = gym.spaces.Box(-10.0, 10.0, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32) if stride else gym.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.time = self.np_random.uniform(-5, 5), 0
        return self._observation(), {}

    def step(self, action):
        self.place += float(np.sum(action)) if isinstance(self.action_space, gym.spaces.Box) else int(action) - 1.0
        self.place, self.time = float(np.clip(self.place, -10, 10)), self.time + 1
        return self._observation(), -abs(self.place), False, self.time >= 20, {}

    def _observation(self):
        return np.array([self.place, self.time / 10], np.float32)


gym.register("Corridor-v0", entry_point=Corridor)
gym.register("Stride-v0", entry_point=Corridor, kwargs={"stride": True})
'''


def command(root: Path, settings: dict[str, str], *options: str) -> list[str]:
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "training_src.train", "--root", str(root), *pairs, *options]


def train(root: Path, settings: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(root, settings, *options), cwd=REPOSITORY, capture_output=True, text=True, timeout=90)


def succeed(root: Path, settings: dict[str, str], *options: str) -> str:
    done = train(root, settings, *options)
    assert done.returncode == 0, done.stderr
    assert not (root / "output" / "failure").exists()
    return done.stdout


def interrupt(root: Path, settings: dict[str, str], number: signal.Signals) -> int:
    """Start training, send a signal once there is a checkpoint, and return the exit status."""
    with subprocess.Popen(command(root, settings), cwd=REPOSITORY, stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 60
            while not any((root / "checkpoints").glob("checkpoint-*.pt")):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.005)
            process.send_signal(number)
            return process.wait(60)
        finally:
            process.kill()


def newest(root: Path) -> dict[str, Any]:
    content = load_checkpoint(root / "checkpoints")
    assert content is not None
    return content


def assert_same_outcome(one: Path, two: Path) -> None:
    first, second = newest(one), newest(two)
    assert first["steps"] == second["steps"]
    for part in ("policy", "average"):
        assert first[part].keys() == second[part].keys()
        for name, value in first[part].items():
            assert torch.equal(value, second[part][name]), f"{part}: {name}"
    assert (one / "model" / "policy.onnx").read_bytes() == (two / "model" / "policy.onnx").read_bytes()
    assert read_bundle(one / "model") == read_bundle(two / "model")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The root and the output of a run that was not interrupted, its settings given as SageMaker gives them."""
    root = tmp_path_factory.mktemp("whole")
    (root / "input" / "config").mkdir(parents=True)
    given = {key: json.dumps(value) if index % 2 else value for index, (key, value) in enumerate(SMALL.items())}
    given |= {"sagemaker_region": '"eu-west-1"', "_tuning_objective_metric": "eval_cost_mean"}
    (root / "input" / "config" / "hyperparameters.json").write_text(json.dumps(given))
    return root, succeed(root, {})


def test_training_writes_a_bundle_that_loads(whole: tuple[Path, str]) -> None:
    root, _ = whole
    bundle = read_bundle(root / "model")
    assert (bundle.name, bundle.kind) == ("smoke", "scaling")
    assert bundle.provenance["steps"] == 6144 and bundle.provenance["finished"] is True
    preset = load_preset(_saved_preset(bundle, root))
    assert preset.values()["total_steps"] == 6000 and preset.values()["episode_steps"] == 300
    assert len(list((root / "checkpoints").iterdir())) == 2


def test_each_metric_of_the_preset_is_found_in_the_output(whole: tuple[Path, str]) -> None:
    root, output = whole
    found = list(parse(output))
    assert {name for name, _ in found} == set(load_preset("smoke").metrics)
    last = dict(found)
    assert (last["train_progress"], last["train_total_steps"]) == (1.0, 6144)
    # three while training, one of the policy that is exported
    assert sum(name == "eval_cost_mean" for name, _ in found) == 4
    best = min(value for name, value in found if name == "eval_cost_mean")
    assert last["eval_best_cost"] == best == read_bundle(root / "model").provenance["evaluation"]["eval_cost_mean"]
    kept = [json.loads(line) for line in (root / "output" / "data" / "metrics.jsonl").read_text().splitlines()]
    assert [line["steps"] for line in kept if "eval_cost_mean" in line] == [2048, 4096, 6144, 6144]


def test_a_killed_run_goes_on_to_the_same_weights(whole: tuple[Path, str], tmp_path: Path) -> None:
    assert interrupt(tmp_path, SMALL, signal.SIGKILL) == -signal.SIGKILL
    assert not any((tmp_path / "model").iterdir())
    reached = newest(tmp_path)["steps"]
    assert 0 < reached < 6000
    output = succeed(tmp_path, SMALL)
    assert f"resumed from the checkpoint at {reached:,} steps" in output
    assert_same_outcome(tmp_path, whole[0])


def test_a_stopped_run_saves_what_it_has_and_goes_on_to_the_same_weights(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    assert interrupt(tmp_path, SMALL, signal.SIGTERM) == 0
    stopped = read_bundle(tmp_path / "model")
    reached = newest(tmp_path)["steps"]
    assert 0 < reached < 6000
    assert (stopped.provenance["finished"], stopped.provenance["steps"]) == (False, reached)
    assert not (tmp_path / "output" / "failure").exists()
    # On SageMaker a resumed job starts with its checkpoints alone.
    for name in ("model", "output"):
        shutil.rmtree(tmp_path / name)
    succeed(tmp_path, SMALL)
    assert_same_outcome(tmp_path, whole[0])


def test_a_finished_run_can_be_run_again_and_other_settings_are_refused(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    root = tmp_path / "again"
    shutil.copytree(whole[0], root)
    shutil.rmtree(root / "model")
    succeed(root, {})
    assert_same_outcome(root, whole[0])
    shutil.rmtree(root / "model")
    message = refused(root, {"seed": "1", "gamma": "0.9"})
    assert "other settings (gamma was 0.99, is 0.9; seed was 0, is 1)" in message


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "corridor_of_a_user.py").write_text(ENVIRONMENTS)
    return folder


def test_a_users_own_environment_trains_and_resumes(source: Path, tmp_path: Path) -> None:
    settings = OTHER | {"environment_id": "corridor_of_a_user:Corridor-v0"}
    output = succeed(tmp_path, settings, "--source-dir", str(source))
    assert "eval_reward_mean" in dict(parse(output)) and "eval_cost_mean" not in dict(parse(output))
    bundle = read_bundle(tmp_path / "model")
    assert (bundle.kind, bundle.interface) == ("generic", Interface(2, "discrete", 3))
    assert OnnxPolicy(bundle.files["policy.onnx"])(np.zeros((5, 2), np.float32)).shape == (5, 3)
    for path in (tmp_path / "checkpoints").glob("*1024.pt"):
        path.write_bytes(path.read_bytes()[:1000])
    again = succeed(tmp_path, settings, "--source-dir", str(source))
    assert "checkpoint skipped, it cannot be read" in again and "resumed from the checkpoint at 512 steps" in again
    assert newest(tmp_path)["steps"] == 1024


def test_a_users_own_environment_with_continuous_actions_trains_from_the_code_folder(
    source: Path, tmp_path: Path
) -> None:
    source.rename(tmp_path / "code")
    succeed(tmp_path, OTHER | {"environment_id": "corridor_of_a_user:Stride-v0"})
    bundle = read_bundle(tmp_path / "model")
    assert (bundle.kind, bundle.interface) == ("generic", Interface(2, "continuous", 3))
    assert OnnxPolicy(bundle.files["policy.onnx"])(np.zeros((1, 2), np.float32)).shape == (1, 3)


def write_trace(root: Path, text: str, name: str = "load.csv") -> Path:
    path = root / "input" / "data" / "trace" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def generated_trace(days: int = 5) -> str:
    load = [5 + 4 * np.sin(2 * np.pi * i / 288) for i in range(days * 288)]
    return "timestamp,value\n" + "".join(f"{1_767_600_000 + 300 * i},{value:.3f}\n" for i, value in enumerate(load))


@pytest.mark.parametrize("kind", ["generated", "real"])
def test_a_trace_channel_replaces_the_load(kind: str, tmp_path: Path) -> None:
    if kind == "real" and not REAL_TRACE.exists():
        pytest.skip("no real trace beside the repository")
    path = write_trace(tmp_path, generated_trace() if kind == "generated" else REAL_TRACE.read_text())
    settings = SMALL | {"total_steps": "1024"}
    succeed(tmp_path, settings)
    bundle = read_bundle(tmp_path / "model")
    assert bundle.provenance["trace"]["name"] == "load.csv"
    problem = load_preset(_saved_preset(bundle, tmp_path)).problem()
    assert problem is not None and problem.load.kind == "trace" and problem.load.path == path.name
    # 40 machines at the training part's 99.9th percentile, and a busy machine earns what it did.
    assert problem.fleet.throughput == bundle.fleet.throughput != 300
    if kind == "generated":
        assert bundle.fleet.throughput == pytest.approx(9 / 40, rel=0.01)
    assert problem.economics.success_value * problem.fleet.throughput == pytest.approx(0.9 * 300)


def _saved_preset(bundle: Bundle, folder: Path) -> Path:
    path = folder / "saved.yaml"
    path.write_bytes(bundle.files["preset.yaml"])
    return path


def refused(root: Path, settings: dict[str, str], *options: str) -> str:
    """Run training on wrong input: one line, the same in the failure file, exit status 2, no bundle."""
    done = train(root, settings, *options)
    assert done.returncode == 2, done.stderr
    message = done.stderr.removeprefix("error: ")
    assert done.stderr.startswith("error: ") and message.count("\n") == 1 and message.endswith("\n")
    failure = root / "output" / "failure"
    assert failure.read_text() == message.rstrip("\n")
    assert not (root / "model" / "bundle.json").exists()
    return message


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"preset": "smoek"}, "unknown preset 'smoek', did you mean 'smoke'?"),
        ({"learning_rte": "0.1"}, "unknown hyperparameter 'learning_rte', did you mean 'learning_rate'?"),
        ({"gamma": "1.5"}, "gamma: 1.5 is out of range, allowed above 0 and at most 1"),
        ({"gamma": "high"}, "gamma: expected a number, got 'high'"),
        ({"load_kind": "trace", "load_path": "nowhere.csv"}, "nowhere.csv: no such file"),
        ({"environment_id": "nowhere_at_all:Env-v0", "reward": "reward"}, "'nowhere_at_all:Env-v0' cannot be imported"),
        ({"environment_id": "Nowhere-v0", "reward": "reward"}, "'Nowhere-v0' cannot be made"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(settings: dict[str, str], expected: str, tmp_path: Path) -> None:
    assert expected in refused(tmp_path, {"preset": "smoke"} | settings)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("load.csv", "", "load.csv, line 1: the file is empty"),
        ("load.csv", "timestamp,value\n", "load.csv: no rows below the header"),
        ("load.csv", "timestamp,value\n0,1\n300,many\n", "load.csv, line 3: value 'many' is not a finite number"),
        ("load.txt", "timestamp,value\n0,1\n", "channel 'trace'"),
    ],
)
def test_a_wrong_trace_is_refused_in_one_line(name: str, text: str, expected: str, tmp_path: Path) -> None:
    write_trace(tmp_path, text, name)
    assert expected in refused(tmp_path, {"preset": "smoke"})


def test_a_model_folder_that_cannot_be_made_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file where the folder should be")
    assert "model: cannot be created: File exists" in refused(tmp_path, {"preset": "smoke"})


@pytest.fixture
def full_folder(tmp_path: Path) -> Iterator[Path]:
    """A root whose model folder is a file system of 64 KiB."""
    folder = tmp_path / "model"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_model_folder_that_is_full_is_refused_before_training(full_folder: Path) -> None:
    assert "No space left on device; free some space" in refused(full_folder, {"preset": "smoke"})
