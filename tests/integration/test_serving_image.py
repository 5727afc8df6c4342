"""The endpoint's image, built from its real Dockerfile and run as SageMaker runs it.

The image is built on the Dockerfile's own base where that can be pulled. Elsewhere it is built on a stand-in made from
Debian's packages, with Debian's version of Python and not the one that the Dockerfile names: then these tests show
that the steps of the Dockerfile work, not that the upstream base suits them.

Skipped, with the reason, where no engine can run or no base can be had.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policy_runtime import Policy, builtin_bundle, decide
from policy_runtime.bundle import write_bundle_folder
from tests.containers.engine import Engine, NoEngine, running_engine
from tests.containers.stand_in_base import NoStandInBase, make_root_filesystem
from tests.samples import decision_request, learned_bundle

pytestmark = pytest.mark.timeout(600)  # building the image takes its time

REPOSITORY = Path(__file__).parents[2]
DOCKERFILE = REPOSITORY / "serving" / "Dockerfile"
MAX_BYTES = 160 * 2**20
"""Largest size of the image without its base."""
SAGEMAKER = (
    *("--network", "none", "--read-only", "--tmpfs", "/tmp"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "512m"),
)
ASK = """
import http.client, sys
method, path, port = sys.argv[1:]
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=10)
connection.request(method, path, sys.stdin.buffer.read(), {"Content-Type": "application/json"})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        with running_engine() as engine:
            yield engine
    except NoEngine as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def base(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Dockerfile's base, or a stand-in."""
    match = re.search(r"^ARG BASE=(\S+)$", DOCKERFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert match is not None
    upstream = match[1]
    if engine("image", "inspect", upstream, check=False).returncode == 0:
        yield upstream
        return
    with contextlib.suppress(subprocess.TimeoutExpired):
        if engine("pull", upstream, check=False, timeout=180).returncode == 0:
            yield upstream
            return
    folder = tmp_path_factory.mktemp("base")
    try:
        root = make_root_filesystem(folder)
    except NoStandInBase as error:
        pytest.skip(f"{upstream} cannot be pulled, and no stand-in for it can be made: {error}")
    archive = folder / "base.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, ".")
    name = f"stand-in-base-{uuid.uuid4().hex}"
    engine("import", archive, name, timeout=120)
    shutil.rmtree(folder)
    yield name
    engine("rmi", "--force", name)


@pytest.fixture(scope="module")
def image(engine: Engine, base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image, made with this machine's settings of pip and its certificates."""
    folder = tmp_path_factory.mktemp("build")
    certificates = folder / "ca.pem"
    shutil.copy(_certificates(), certificates)
    settings = folder / "pip.conf"
    settings.write_text("\n".join(["[global]", "cert = /run/secrets/ca.pem", *_pip_settings()]), encoding="utf-8")
    name = f"fleet-serving-{uuid.uuid4().hex}"
    arguments: list[str | Path] = [
        "--file",
        DOCKERFILE,
        "--build-arg",
        f"BASE={base}",
        "--network",
        "host",
        "--tag",
        name,
    ]
    for secret in (settings, certificates):
        arguments += ["--secret", f"id={secret.name},src={secret}"]
    engine("build", *arguments, REPOSITORY, timeout=420)
    yield name
    engine("rmi", "--force", name)


def _pip_config() -> dict[str, str]:
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    return {name.rpartition(".")[2]: ast.literal_eval(value) for name, _, value in pairs}


def _certificates() -> Path:
    """The certificates that this machine trusts."""
    known = (_pip_config().get("cert"), ssl.get_default_verify_paths().cafile, "/etc/ssl/certs/ca-certificates.crt")
    return next(path for name in known if name and (path := Path(name)).is_file())


def _pip_settings() -> Iterator[str]:
    """Where pip looks for packages, in lines of its configuration file; folders of this machine are left out."""
    for name, value in _pip_config().items():
        if name in ("index-url", "extra-index-url", "trusted-host"):
            places = [place for place in value.split() if not place.startswith("file:")]
            if places:
                yield f"{name} = {' '.join(places)}"


@contextlib.contextmanager
def container(engine: Engine, image: str, *arguments: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    """A running container."""
    name = engine("run", "--detach", *SAGEMAKER, *options, image, *arguments).stdout.strip()
    try:
        yield name
    finally:
        engine("rm", "--force", "--volumes", name)


def model(folder: Path) -> tuple[str, str]:
    """Options that mount a bundle's folder as SageMaker does."""
    return "--volume", f"{folder}:/opt/ml/model:ro"


def ask(
    engine: Engine, container: str, method: str, path: str, body: bytes = b"", port: int = 8080, check: bool = True
) -> tuple[int, str]:
    """Status and body of an answer, asked for inside the container, which has no network; 0 without an answer."""
    arguments = ("exec", "--interactive", container, "python", "-c", ASK, method, path, str(port))
    done = engine(*arguments, stdin=body, check=check)
    status, _, answer = done.stdout.partition(" ")
    return int(status or 0), answer


def wait_until_ready(engine: Engine, container: str, port: int = 8080) -> None:
    deadline = time.monotonic() + 30
    while ask(engine, container, "GET", "/ping", port=port, check=False)[0] != 200:
        running = engine("inspect", "--format", "{{.State.Running}}", container).stdout.strip()
        if running != "true" or time.monotonic() > deadline:
            logs = engine("logs", container)
            pytest.fail(f"/ping does not answer 200 within 30 seconds:\n{logs.stdout}{logs.stderr}")
        time.sleep(0.1)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "bundle"
    write_bundle_folder(learned_bundle(), folder)
    return folder


@pytest.fixture(scope="module")
def serving(engine: Engine, image: str, learned: Path) -> Iterator[str]:
    """A container that serves the learned policy."""
    with container(engine, image, "serve", options=model(learned)) as name:
        wait_until_ready(engine, name)
        yield name


def test_the_build_sees_the_two_packages_and_no_other_file(engine: Engine, tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("FROM scratch\nCOPY . /\n", encoding="utf-8")
    shutil.copy(DOCKERFILE.with_name("Dockerfile.dockerignore"), tmp_path)
    context = tmp_path / "context.tar"
    engine("build", "--file", dockerfile, "--output", f"type=tar,dest={context}", REPOSITORY, timeout=120)
    with tarfile.open(context) as archive:
        found = {member.name for member in archive if member.isfile()}
    expected = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("policy_runtime", "serving")
        for path in (REPOSITORY / package).rglob("*")
        if path.suffix == ".py" or path.name in ("py.typed", "requirements.txt")
    }
    assert found == expected


def test_the_image_runs_as_a_user_without_rights_and_says_what_it_needs(engine: Engine, image: str) -> None:
    (inspected,) = json.loads(engine("image", "inspect", image).stdout)
    configuration: dict[str, Any] = inspected["Config"]
    assert configuration["User"].split(":")[0] not in ("", "0", "root")
    assert list(configuration["ExposedPorts"]) == ["8080/tcp"]
    assert configuration["Labels"]["com.amazonaws.sagemaker.capabilities.accept-bind-to-port"] == "true"
    environment = dict(setting.partition("=")[::2] for setting in configuration["Env"])
    for name in ("ORT_DISABLE_TELEMETRY", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
        assert environment[name] == "1"


def test_the_image_without_its_base_is_small(engine: Engine, image: str, base: str) -> None:
    size, base_size = (int(engine("image", "inspect", "--format", "{{.Size}}", name).stdout) for name in (image, base))
    added = size - base_size
    print(f"\nimage without base: {added / 2**20:.1f} MiB")
    assert 0 < added <= MAX_BYTES


def test_the_image_holds_neither_a_training_library_nor_a_secret_of_the_build(engine: Engine, image: str) -> None:
    script = """
import importlib.util, pathlib
print([name for name in ("torch", "boto3", "gymnasium", "training_src") if importlib.util.find_spec(name)])
print([str(path) for path in map(pathlib.Path, ("/etc/pip.conf", "/run/secrets/ca.pem", "/src")) if path.exists()])
"""
    done = engine("run", "--rm", *SAGEMAKER, "--entrypoint", "python", image, "-c", script)
    assert done.stdout.splitlines() == ["[]", "[]"]


@pytest.mark.parametrize("steps", [1, 60])
def test_the_container_decides_as_the_policy_does(engine: Engine, serving: str, learned: Path, steps: int) -> None:
    policy = Policy(learned_bundle())
    request = decision_request(policy, steps)
    status, answer = ask(engine, serving, "POST", "/invocations", json.dumps(request).encode())
    assert status == 200
    assert json.loads(answer) == decide(policy, request)


def test_the_health_check_passes_while_the_server_answers(engine: Engine, image: str, serving: str) -> None:
    check = json.loads(engine("image", "inspect", "--format", "{{json .Config.Healthcheck.Test}}", image).stdout)
    assert check[0] == "CMD"
    assert engine("exec", serving, *check[1:], check=False).returncode == 0
    other_port = ("--env", "SAGEMAKER_BIND_TO_PORT=8099")
    assert engine("exec", *other_port, serving, *check[1:], check=False).returncode != 0


def test_without_arguments_it_serves_too_and_on_the_port_that_a_pipeline_gives(
    engine: Engine, image: str, tmp_path: Path
) -> None:
    write_bundle_folder(builtin_bundle(), tmp_path / "bundle")
    options = (*model(tmp_path / "bundle"), "--env", "SAGEMAKER_BIND_TO_PORT=8099")
    with container(engine, image, options=options) as name:
        wait_until_ready(engine, name, port=8099)
        policy = Policy(builtin_bundle())
        request = decision_request(policy, 60)
        status, answer = ask(engine, name, "POST", "/invocations", json.dumps(request).encode(), port=8099)
        assert (status, json.loads(answer)) == (200, decide(policy, request))


def test_sigterm_ends_it_with_code_0(engine: Engine, image: str, learned: Path) -> None:
    with container(engine, image, "serve", options=model(learned)) as name:
        wait_until_ready(engine, name)
        start = time.monotonic()
        engine("stop", "--time", "30", name)
        assert time.monotonic() - start < 10
        state = json.loads(engine("inspect", "--format", "{{json .State}}", name).stdout)
        logs = engine("logs", name)
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)
    assert "Traceback" not in logs.stdout + logs.stderr


@pytest.mark.parametrize("content", [None, b'{"schema_version": 1'])
def test_an_unreadable_bundle_ends_it_with_code_2_and_a_message(
    engine: Engine, image: str, tmp_path: Path, content: bytes | None
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    if content is not None:
        (folder / "bundle.json").write_bytes(content)
    done = engine("run", "--rm", *SAGEMAKER, *model(folder), image, "serve", check=False)
    assert done.returncode == 2
    assert "bundle.json" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
