from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from policy_runtime import BundleError, Policy, builtin_bundle, decide, write_bundle
from policy_runtime.bundle import RulePart, write_bundle_folder
from policy_runtime.rules import RULES
from policy_runtime.spec import FleetSpec
from serving.loading import example_request, load


@pytest.mark.parametrize("rule", [name for name in RULES if name != "static"])
@pytest.mark.parametrize("fleet", [FleetSpec(), FleetSpec(min_machines=0, provisioning_delay=90, step_seconds=300)])
def test_each_policy_can_decide_on_its_example(rule: str, fleet: FleetSpec) -> None:
    policy = Policy(dataclasses.replace(builtin_bundle(fleet), policy=RulePart(rule)))

    record = decide(policy, example_request(policy))

    assert not record["fallback"]
    assert fleet.min_machines <= record["desired"] <= fleet.max_machines


def test_a_bundle_is_found_in_each_place_that_sagemaker_may_put_it(tmp_path: Path) -> None:
    folder, archive = tmp_path / "folder", tmp_path / "archive"
    write_bundle_folder(builtin_bundle(), folder)
    archive.mkdir()
    write_bundle(builtin_bundle(), archive / "model.tar.gz")

    for path in (folder, archive, archive / "model.tar.gz"):
        assert load(path).bundle == builtin_bundle()


def test_no_bundle_is_an_error_that_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere: does not exist, expected model\.tar\.gz or a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"bundle\.json is missing"):
        load(tmp_path)


def test_a_policy_that_cannot_decide_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bundle_folder(builtin_bundle(), tmp_path)

    def desired(*_: object) -> None:
        raise ZeroDivisionError("no machines")

    monkeypatch.setattr(RULES["hybrid"], "desired", desired)

    with pytest.raises(BundleError, match="the policy cannot decide: no machines"):
        load(tmp_path)
