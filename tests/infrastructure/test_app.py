"""The app as a whole: which stacks it makes, how it refuses, and that a synth depends on nothing but the checkout."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import aws_cdk as cdk
import pytest

from stacks.settings import environments

RunApp = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


def test_every_environment_has_the_same_stacks(stacks):
    assert set(stacks) == {"storage"}


def test_resources_carry_the_tags_of_the_settings(environment, storage):
    expected = [
        {"Key": "environment", "Value": environment},
        {"Key": "project", "Value": "fleet-scaling-rl"},
    ]
    for bucket in storage.find_resources("AWS::S3::Bucket").values():
        assert bucket["Properties"]["Tags"] == expected


def test_an_unknown_environment_is_refused_before_anything_is_written(run_app: RunApp, tmp_path: Path):
    result = run_app("staging")
    assert result.returncode == 2
    assert result.stderr.strip() == "env: unknown environment 'staging', allowed: dev, prod"
    assert list(tmp_path.rglob("*.json")) == []


def test_two_synths_give_the_same_bytes_whatever_the_credentials(run_app: RunApp, tmp_path: Path):
    credentials = {
        "AWS_PROFILE": "someone",
        "AWS_REGION": "eu-west-3",
        "CDK_DEFAULT_ACCOUNT": "111122223333",
        "CDK_DEFAULT_REGION": "eu-west-3",
    }
    assert run_app("dev", "without").returncode == 0
    assert run_app("dev", "with", credentials).returncode == 0
    without, with_credentials = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("without", "with")
    )
    assert "dev-fleet-scaling-storage.template.json" in without
    assert without == with_credentials


@pytest.mark.parametrize("env", environments())
def test_cloudformation_validation_finds_nothing(run_app: RunApp, tmp_path: Path, env: str):
    result = run_app(env, variables={"CDK_VALIDATION": "true"})
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "cdk.out/validation-report.json").read_text())
    assert report["pluginReports"] == []


def test_cdk_json_sets_every_recommended_feature_flag():
    (library,) = (Path(cdk.__file__).parent / "_jsii").glob("aws-cdk-lib@*.jsii.tgz")
    with tarfile.open(library) as archive:
        flags = archive.extractfile("package/recommended-feature-flags.json")
        assert flags is not None
        recommended = json.load(flags)
    context = json.loads((ROOT / "cdk.json").read_text())["context"]
    assert {flag: context.get(flag) for flag in recommended} == recommended
