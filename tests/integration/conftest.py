from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from policy_runtime.bundle import Bundle, builtin_bundle, write_bundle_folder
from tests.integration.serving_client import Server

ServerFactory = Callable[..., Server]


@pytest.fixture(scope="session")
def learned_bundle() -> Bundle:
    from tests.samples import learned_bundle  # and with it torch, which most of these tests do without

    return learned_bundle()


@pytest.fixture(scope="session")
def builtin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("builtin")
    write_bundle_folder(builtin_bundle(), folder)
    return folder


@pytest.fixture(scope="session")
def learned_folder(tmp_path_factory: pytest.TempPathFactory, learned_bundle: Bundle) -> Path:
    folder = tmp_path_factory.mktemp("learned")
    write_bundle_folder(learned_bundle, folder)
    return folder


@pytest.fixture
def start(tmp_path: Path, builtin_folder: Path) -> Iterator[ServerFactory]:
    """Starts servers, of the built-in bundle unless told, with settings by name; stops them after the test."""
    servers: list[Server] = []
    numbers = itertools.count()

    def factory(
        bundle: Path = builtin_folder, *, port: int | None = None, ready: bool = True, **settings: object
    ) -> Server:
        server = Server(bundle, tmp_path / f"server-{next(numbers)}.log", port=port, **settings)
        servers.append(server)
        return server.wait_until_ready() if ready else server

    yield factory
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, builtin_folder: Path) -> Iterator[Server]:
    """A server of the built-in bundle, shared by the tests of a module."""
    with Server(builtin_folder, tmp_path_factory.mktemp("server") / "log", schema="true") as server:
        yield server.wait_until_ready()


@pytest.fixture(scope="module")
def learned_server(tmp_path_factory: pytest.TempPathFactory, learned_folder: Path) -> Iterator[Server]:
    """A server of a learned policy, shared by the tests of a module."""
    with Server(learned_folder, tmp_path_factory.mktemp("server") / "log") as server:
        yield server.wait_until_ready()
