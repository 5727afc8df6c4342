"""The folders and files through which SageMaker talks to a training container.

The contract is documented under "Containers with custom training algorithms":
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo.html. Local mode runs the same commands
with another root, given as an argument or by the environment variable ``RL_ML_ROOT``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from policy_runtime.errors import BundleError, InputError
from training_src.errors import UserError

ROOT_VARIABLE = "RL_ML_ROOT"
MAX_HYPERPARAMETERS_BYTES = 1 << 20  # the API allows 100 values of 2,500 characters
PROBE_BYTES = 8 << 20  # room for a model or a checkpoint
USER_ERROR_STATUS = 2
INTERNAL_ERROR_STATUS = 1


class ContainerError(UserError):
    """The container's folders or files are not as the contract says, or cannot be used."""


class Container:
    """A training container's view of its folders.

    Attributes:
        root: ``/opt/ml`` on SageMaker.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        """Use ``root``, else ``$RL_ML_ROOT``, else ``/opt/ml``; nothing is created or checked yet."""
        self.root = Path(root or os.environ.get(ROOT_VARIABLE) or "/opt/ml")

    def hyperparameters(self) -> dict[str, str]:
        """The job's hyperparameters, as strings; none when the file is missing.

        A value that is itself a JSON string (the SageMaker SDK quotes texts so) is unquoted, other values are left as
        they are. Keys that SageMaker adds (``sagemaker_*``, ``_tuning_*``) are left out.

        Raises:
            ContainerError: the file is too large, is not a JSON object, or holds a value that is not a string.
        """
        path = self.root / "input" / "config" / "hyperparameters.json"
        try:
            with path.open("rb") as file:
                content = file.read(MAX_HYPERPARAMETERS_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ContainerError(f"{path}: cannot be read: {error.strerror}") from error
        if len(content) > MAX_HYPERPARAMETERS_BYTES:
            raise ContainerError(f"{path}: larger than {MAX_HYPERPARAMETERS_BYTES} bytes")
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ContainerError(f"{path}: is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ContainerError(f"{path}: expected a JSON object, got {type(values).__name__}")
        for key, value in values.items():
            if not isinstance(value, str):
                raise ContainerError(
                    f"{path}: hyperparameter {key!r} is {json.dumps(value)}: every value must be a string, "
                    f"for example {json.dumps(json.dumps(value))}"
                )
        return {
            key: _unquoted(value) for key, value in values.items() if not key.startswith(("sagemaker_", "_tuning_"))
        }

    def channel(self, name: str) -> Path | None:
        """The folder of an input channel; None when it is absent or empty."""
        path = self.root / "input" / "data" / name
        return path if path.is_dir() and any(path.iterdir()) else None

    def channel_file(self, name: str, suffixes: Sequence[str]) -> Path | None:
        """The only file of an input channel whose name ends in one of ``suffixes``; None when there is no channel.

        Raises:
            ContainerError: the channel holds no such file, or more than one.
        """
        folder = self.channel(name)
        if folder is None:
            return None
        wanted = " or ".join(suffixes)
        present = sorted(path for path in folder.rglob("*") if path.is_file())
        files = [path for path in present if path.name.endswith(tuple(suffixes))]
        if len(files) == 1:
            return files[0]
        names = ", ".join(str(path.relative_to(folder)) for path in (files or present)[:5]) or "no file"
        problem = f"expected one {wanted} file, found {len(files)}" if files else f"no {wanted} file"
        raise ContainerError(f"channel {name!r} ({folder}): {problem} (it holds {names})")

    @property
    def model_dir(self) -> Path:
        """Where the model goes; SageMaker uploads it as ``model.tar.gz``. Created on demand."""
        return _folder(self.root / "model")

    @property
    def checkpoint_dir(self) -> Path:
        """Kept in step with S3 in both directions while the job runs. Created on demand."""
        return _folder(self.root / "checkpoints")

    @property
    def output_dir(self) -> Path:
        """Where archives go; SageMaker uploads it as ``output.tar.gz``. Created on demand."""
        return _folder(self.root / "output" / "data")

    def check_writable(self, probe_bytes: int = PROBE_BYTES) -> None:
        """Write and remove a file in each folder that a job writes to.

        Raises:
            ContainerError: a folder is read-only or full; found before training, not after.
        """
        for folder in (self.model_dir, self.checkpoint_dir, self.output_dir):
            try:
                with tempfile.TemporaryFile(dir=folder) as file:
                    file.write(bytes(probe_bytes))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise ContainerError(
                    f"{folder}: cannot write {probe_bytes / 1e6:.0f} MB: {error.strerror}; "
                    "free some space or choose another folder"
                ) from error

    def fail(self, message: str) -> None:
        """Leave a message for ``FailureReason``, which shows the first 1,024 characters."""
        path = self.root / "output" / "failure"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(message, encoding="utf-8")
        except OSError as error:
            # The job is failing for another reason, which must stay the one that is seen.
            print(f"warning: {path}: cannot be written: {error.strerror}", file=sys.stderr)

    @contextlib.contextmanager
    def reporting_failures(self) -> Iterator[None]:
        """Turn an exception into a failure file, a message on stderr and a non-zero exit status.

        An error that the user can put right (``UserError``, a bad bundle or input, the operating system's refusals)
        is shown as its message and exits with 2; anything else is a defect: its traceback is shown and it exits with 1.
        The failure file of an earlier run in the same folder is removed first.
        """
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # the latter is reported where it matters
                (self.root / "output" / "failure").unlink()
            yield
        except (UserError, BundleError, InputError, OSError) as error:
            message = str(error)
            print(f"error: {message}", file=sys.stderr)
            self.fail(message)
            raise SystemExit(USER_ERROR_STATUS) from error
        except Exception as error:
            traceback.print_exc()
            self.fail(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
            raise SystemExit(INTERNAL_ERROR_STATUS) from error


class StopSignal:
    """Notes SIGTERM and SIGINT while it is entered, so that a loop can stop at a point of its choice.

    SageMaker sends SIGTERM when a job is stopped or a spot instance is taken back, and kills 120 seconds later
    (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopTrainingJob.html). A second SIGINT interrupts at
    once. Must be entered in the main thread.

    Attributes:
        received: the first signal since entering, or None.
    """

    def __init__(self) -> None:
        """Nothing is installed before the object is entered."""
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        """Whether to stop."""
        return self.received is not None

    def __enter__(self) -> Self:
        """Install the handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Put back the handlers that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is signal.SIGINT:
            raise KeyboardInterrupt
        self.received = self.received or signal.Signals(number)


def _unquoted(value: str) -> str:
    if not value.lstrip().startswith('"'):
        return value
    try:
        decoded = json.loads(value)
    except ValueError:
        return value
    return decoded if isinstance(decoded, str) else value


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContainerError(f"{path}: cannot be created: {error.strerror}") from error
    return path
