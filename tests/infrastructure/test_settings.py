"""Settings: what is accepted, and that each refusal names the file, the key and the problem."""

from __future__ import annotations

from pathlib import Path

import pytest

from stacks.settings import Settings, SettingsError, environments, load_settings


def load(folder: Path, text: str) -> Settings:
    (folder / "test.yaml").write_text(text)
    return load_settings("test", folder)


@pytest.mark.parametrize("environment", environments())
def test_the_committed_settings_are_valid(environment):
    assert load_settings(environment).environment == environment


def test_production_keeps_its_data_and_development_does_not():
    assert not load_settings("prod").remove_data_on_destroy
    assert load_settings("dev").remove_data_on_destroy


def test_only_the_environment_is_required(tmp_path):
    settings = load(tmp_path, "environment: test")
    assert (settings.account, settings.region, settings.tags) == (None, None, {})
    assert not settings.remove_data_on_destroy


def test_account_and_region_are_read(tmp_path):
    settings = load(tmp_path, "environment: test\naccount: '012345678901'\nregion: us-gov-west-1")
    assert (settings.account, settings.region) == ("012345678901", "us-gov-west-1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "file: Input should be a valid dictionary"),
        ("- environment", "file: Input should be a valid dictionary"),
        ("environment: [", "not valid YAML"),
        ("tags: {}", "environment: Field required"),
        ("environment: other", "environment: is 'other', expected 'test'"),
        ("environment: Test", "environment: String should match pattern"),
        ("environment: test\nregoin: eu-west-1", "regoin: Extra inputs are not permitted"),
        ("environment: test\naccount: 123456789012\nregion: eu-west-1", "account: Input should be a valid string"),
        ("environment: test\naccount: '1234'\nregion: eu-west-1", "account: String should match pattern"),
        ("environment: test\naccount: '123456789012'", "account and region are set together or not at all"),
        ("environment: test\naccount: '123456789012'\nregion: Paris", "region: String should match pattern"),
        ("environment: test\nremove_data_on_destroy: 'no'", "remove_data_on_destroy: Input should be a valid boolean"),
        ("environment: test\ntags: {owner: 7}", "tags.owner: Input should be a valid string"),
        ("environment: test\ntags: {owner: 'a;b'}", "tags.owner: String should match pattern"),
    ],
)
def test_wrong_settings_are_refused_with_file_key_and_problem(tmp_path, text, problem):
    with pytest.raises(SettingsError) as raised:
        load(tmp_path, text)
    assert str(raised.value).startswith(f"{tmp_path / 'test.yaml'}: ")
    assert problem in str(raised.value)


def test_an_unknown_environment_lists_the_known_ones(tmp_path):
    (tmp_path / "blue.yaml").touch()
    (tmp_path / "green.yaml").touch()
    with pytest.raises(SettingsError, match="unknown environment 'red', allowed: blue, green"):
        load_settings("red", tmp_path)


@pytest.mark.parametrize("name", ["../dev", "", "dev.yaml"])
def test_a_name_that_is_no_environment_reads_no_file(name):
    with pytest.raises(SettingsError, match="unknown environment"):
        load_settings(name)
