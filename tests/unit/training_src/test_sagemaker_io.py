import json
import os
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy_runtime.errors import BundleError
from training_src.sagemaker_io import Container, ContainerError, StopSignal


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def write_hyperparameters(container: Container, text: str | bytes) -> None:
    folder = container.root / "input" / "config"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hyperparameters.json").write_bytes(text if isinstance(text, bytes) else text.encode())


def write_channel(container: Container, name: str, *files: str) -> Path:
    folder = container.root / "input" / "data" / name
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("x")
    return folder


def test_the_root_is_the_argument_then_the_variable_then_opt_ml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RL_ML_ROOT", raising=False)
    assert Container().root == Path("/opt/ml")
    monkeypatch.setenv("RL_ML_ROOT", str(tmp_path))
    assert Container().root == tmp_path
    assert Container(tmp_path / "other").root == tmp_path / "other"


def test_there_are_no_hyperparameters_without_the_file(container: Container) -> None:
    assert container.hyperparameters() == {}


def test_hyperparameters_are_unquoted_and_reserved_keys_dropped(container: Container) -> None:
    write_hyperparameters(
        container,
        json.dumps(
            {
                "preset": '"smoke"',
                "activation": "relu",
                "gamma": "0.99",
                "action_steps": "[-1, 0, 1]",
                "half": '"open',
                "sagemaker_region": '"eu-west-1"',
                "_tuning_objective_metric": "eval_cost_mean",
            }
        ),
    )
    assert container.hyperparameters() == {
        "preset": "smoke",
        "activation": "relu",
        "gamma": "0.99",
        "action_steps": "[-1, 0, 1]",
        "half": '"open',
    }


@settings(deadline=None)
@given(value=st.text())
def test_a_text_arrives_the_same_whether_quoted_once_more_or_not(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    container = Container(tmp_path_factory.mktemp("ml"))
    write_hyperparameters(container, json.dumps({"quoted": json.dumps(value)}))
    assert container.hyperparameters() == {"quoted": value}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "expected a JSON object, got list"),
        ('{"gamma": 0.99}', "'gamma' is 0.99: every value must be a string"),
        (json.dumps({"a": "x" * (1 << 20)}), "larger than"),
    ],
)
def test_unusable_hyperparameters_are_refused(container: Container, text: str | bytes, message: str) -> None:
    write_hyperparameters(container, text)
    with pytest.raises(ContainerError, match=message):
        container.hyperparameters()


def test_a_channel_that_is_absent_or_empty_is_none(container: Container) -> None:
    assert container.channel("trace") is None
    folder = write_channel(container, "trace")
    assert container.channel("trace") is None
    assert container.channel_file("trace", [".csv"]) is None
    (folder / "a.csv").write_text("x")
    assert container.channel("trace") == folder


def test_the_one_matching_file_of_a_channel_is_found_below_its_prefix(container: Container) -> None:
    folder = write_channel(container, "trace", "2026/load.csv", "notes.txt")
    assert container.channel_file("trace", [".csv"]) == folder / "2026" / "load.csv"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("notes.txt",), r"no \.csv file \(it holds notes\.txt\)"),
        (("a.csv", "b.csv"), r"expected one \.csv file, found 2 \(it holds a\.csv, b\.csv\)"),
    ],
)
def test_a_channel_without_exactly_one_matching_file_is_refused(
    container: Container, files: tuple[str, ...], message: str
) -> None:
    write_channel(container, "trace", *files)
    with pytest.raises(ContainerError, match=message):
        container.channel_file("trace", [".csv"])


def test_folders_are_created_on_demand_and_left_empty_by_the_check(container: Container) -> None:
    container.check_writable()
    for folder in (container.model_dir, container.checkpoint_dir, container.output_dir):
        assert folder.is_dir()
        assert not any(folder.iterdir())


def test_a_folder_that_cannot_be_created_is_refused_with_path_and_reason(container: Container) -> None:
    (container.root / "model").write_text("a file where the folder should be")
    with pytest.raises(ContainerError, match=r"model: cannot be created: File exists"):
        container.check_writable()


def test_a_folder_that_is_full_is_refused_before_training(container: Container) -> None:
    # A limit on the size of files stands in for a full disk: the same call fails with an OSError.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(ContainerError, match=r"model: cannot write 8 MB: File too large; free some space"):
            container.check_writable()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    "error", [ContainerError("model: is full"), BundleError("policy.onnx: is missing"), OSError(28, "No space left")]
)
def test_an_error_that_the_user_can_put_right_is_reported_without_a_traceback(
    container: Container, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    with pytest.raises(SystemExit) as exit_info, container.reporting_failures():
        raise error
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == f"error: {error}\n"
    assert (container.root / "output" / "failure").read_text() == str(error)


def test_a_defect_is_reported_with_its_traceback_after_its_message(
    container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info, container.reporting_failures():
        raise ValueError("shapes do not match")
    assert exit_info.value.code == 1
    assert "Traceback" in capsys.readouterr().err
    failure = (container.root / "output" / "failure").read_text()
    assert failure.startswith("ValueError: shapes do not match\nTraceback")


def test_success_leaves_no_failure_file(container: Container) -> None:
    with container.reporting_failures():
        pass
    assert not (container.root / "output").exists()


def test_the_failure_file_of_an_earlier_run_is_removed(container: Container) -> None:
    with pytest.raises(SystemExit), container.reporting_failures():
        raise ContainerError("model: is full")
    with container.reporting_failures():
        pass
    assert not (container.root / "output" / "failure").exists()


def test_the_reason_is_seen_even_when_the_failure_file_cannot_be_written(
    container: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    (container.root / "output").write_text("a file where the folder should be")
    with pytest.raises(SystemExit) as exit_info, container.reporting_failures():
        raise ContainerError("the first reason")
    assert exit_info.value.code == 2
    assert "error: the first reason" in (shown := capsys.readouterr().err)
    assert "failure: cannot be written" in shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_is_noted_and_the_old_handler_comes_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
        assert stop.received is number
    assert signal.getsignal(number) is before


def test_a_second_interrupt_stops_at_once() -> None:
    with StopSignal(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_repeated_sigterm_does_not_disturb_the_shutdown() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is signal.SIGTERM
