import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from training_src.metrics import METRICS
from training_src.presets import (
    ChoiceSweep,
    Preset,
    PresetError,
    RangeSweep,
    load_preset,
    preset_names,
    resolve,
)
from training_src.problem import PROBLEMS, Fleet, Problem, TraceLoad

DEFAULT = load_preset("default")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The default preset's data with one value replaced or added."""
    data = DEFAULT.data()
    *parents, name = path.split(".")
    section = data
    for parent in parents:
        section = section[parent]
    section[name] = value
    return data


def test_the_promised_presets_exist() -> None:
    assert set(preset_names()) >= {"default", "documented", "classic", "smoke"}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_is_named_as_its_file_and_reports_known_metrics(name: str) -> None:
    preset = load_preset(name)
    assert preset.name == name
    assert set(preset.metrics) <= {metric.name for metric in METRICS}


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_written_to_yaml_is_read_back_equal_with_its_sweeps(name: str, tmp_path: Path) -> None:
    preset = load_preset(name)
    path = tmp_path / "saved.yaml"
    path.write_text(preset.to_yaml())
    assert load_preset(path) == preset
    assert load_preset(path).sweeps() == preset.sweeps()


@pytest.mark.parametrize("name", preset_names())
def test_setting_every_value_to_itself_changes_nothing(name: str) -> None:
    preset = load_preset(name)
    assert resolve(preset, {key: json.dumps(value) for key, value in preset.values().items()}) == preset


@pytest.mark.parametrize("name", preset_names())
def test_flat_names_have_no_dots_and_cover_every_value_once(name: str) -> None:
    preset = load_preset(name)
    settings = preset.settings()
    paths = [setting.path for setting in settings.values()]
    assert len(set(paths)) == len(paths)
    assert all(key.replace("_", "").isalnum() for key in settings)

    def leaves(data: Any, path: tuple[str, ...]) -> set[tuple[str, ...]]:
        if isinstance(data, dict):
            return {leaf for key, value in data.items() for leaf in leaves(value, (*path, key))}
        return {path}

    sections = {key: preset.data()[key] for key in ("environment", "algorithm", "budget")}
    assert set(paths) == leaves(sections, ())


def test_well_known_names_are_short() -> None:
    assert {
        "learning_rate",
        "total_steps",
        "seed",
        "load_level",
        "fleet_provisioning_delay",
        "economics_violation_penalty",
        "episode_steps",
        "action_steps",
        "environment_id",
    } <= set(DEFAULT.settings())


def test_the_default_preset_is_the_fixed_problem() -> None:
    assert DEFAULT.problem() == Problem()
    documented = load_preset("documented").problem()
    assert documented is not None
    assert documented == Problem(action_steps=(-1, 0, 1))


def test_the_classic_preset_is_the_problem_that_its_id_stands_for() -> None:
    assert load_preset("classic").problem() == PROBLEMS["AutoScalingClassic-v0"]


def test_sweeps_are_kept_beside_the_values() -> None:
    sweeps = DEFAULT.sweeps()
    assert sweeps["learning_rate"] == RangeSweep(min=0.0001, max=0.005, scale="log")
    assert sweeps["n_steps"] == ChoiceSweep(values=(16, 32, 64, 128))
    assert DEFAULT.values()["learning_rate"] == 0.001
    for key, sweep in sweeps.items():
        assert sweep.contains(DEFAULT.values()[key])


def test_the_limits_of_a_whole_number_are_whole_numbers() -> None:
    sweep = DEFAULT.sweeps()["n_epochs"]
    assert isinstance(sweep, RangeSweep)
    assert isinstance(sweep.min, int)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("learning_rate", "0.002", 0.002),
        ("learning_rate", "1e-4", 0.0001),
        ("n_epochs", "5.0", 5),
        ("activation", "tanh", "tanh"),
        ("activation", '"tanh"', "tanh"),
        ("normalize_reward", "false", False),
        ("normalize_reward", "False", False),
        ("action_steps", "[-1,0,1]", [-1, 0, 1]),
        ("fleet_initial_machines", "50", 50),
        ("load_level", "123.5", 123.5),
        ("seed", "9999", 9999),
    ],
)
def test_a_value_is_read_from_plain_text_or_json(key: str, text: str, value: Any) -> None:
    assert resolve(DEFAULT, {key: text}).values() == {**DEFAULT.values(), key: value}


def test_null_unsets_an_optional_value() -> None:
    preset = resolve(DEFAULT, {"fleet_initial_machines": "5"})
    assert resolve(preset, {"fleet_initial_machines": "null"}) == DEFAULT


@settings(deadline=None)
@given(st.floats(1e-6, 1.0))
def test_a_number_survives_its_text(rate: float) -> None:
    assert resolve(DEFAULT, {"learning_rate": repr(rate)}).values()["learning_rate"] == rate


def test_another_preset_can_be_the_start() -> None:
    preset = resolve(DEFAULT, {"preset": '"smoke"', "seed": "7"})
    assert (preset.name, preset.budget.seed) == ("smoke", 7)


def test_a_sweep_that_no_longer_holds_the_value_is_dropped() -> None:
    preset = resolve(DEFAULT, {"learning_rate": "0.5", "gamma": "0.9"})
    assert "learning_rate" not in preset.sweeps()
    assert "gamma" in preset.sweeps()
    assert Preset.parse(yaml.safe_load(preset.to_yaml())) == preset


def test_another_kind_of_load_starts_from_its_defaults() -> None:
    preset = resolve(DEFAULT, {"load_kind": "trace", "load_path": "123", "load_level_jitter": "0"})
    problem = preset.problem()
    assert problem is not None
    assert problem.load == TraceLoad(path="123", level_jitter=0.0)


def test_the_other_registered_environment_starts_from_its_own_problem() -> None:
    problem = resolve(DEFAULT, {"environment_id": "AutoScalingClassic-v0", "fleet_max_machines": "100"}).problem()
    assert problem is not None
    assert problem.fleet.max_machines == 100
    assert problem.fleet.billing == "activation"


def test_an_environment_of_the_users_own_takes_free_keyword_arguments() -> None:
    overrides = {"environment_id": "my_module:Mine-v0", "reward": "reward", "environment_kwargs": '{"size": 3}'}
    preset = resolve(DEFAULT, overrides)
    assert preset.problem() is None
    assert preset.environment.kwargs == {"size": 3}
    assert resolve(preset, {"environment_size": "4"}).environment.kwargs == {"size": 4}
    assert Preset.parse(yaml.safe_load(preset.to_yaml())) == preset


def test_a_keyword_argument_of_the_users_own_environment_can_be_swept() -> None:
    data = changed("algorithm.hyperparameters.reward", "reward")
    data["environment"] = {"id": "Mine-v0", "kwargs": {"size": {"default": 3, "sweep": {"min": 1, "max": 5}}}}
    assert Preset.parse(data).sweeps() == {"environment_size": RangeSweep(min=1, max=5)}


def test_a_keyword_argument_named_as_another_setting_is_refused() -> None:
    data = changed("algorithm.hyperparameters.reward", "reward")
    data["environment"] = {"id": "Mine-v0", "kwargs": {"id": 3}}
    with pytest.raises(PresetError, match="environment_id is taken"):
        Preset.parse(data)


def test_a_problem_replaces_the_presets_own() -> None:
    problem = Problem(fleet=Fleet(max_machines=7))
    preset = DEFAULT.with_problem(problem)
    assert preset.problem() == problem
    assert preset.sweeps() == DEFAULT.sweeps()
    assert DEFAULT.problem() == Problem()


def test_another_environment_has_no_problem_to_replace() -> None:
    preset = resolve(DEFAULT, {"environment_id": "CartPole-v1", "reward": "reward"})
    with pytest.raises(PresetError, match="CartPole-v1 has no scaling problem"):
        preset.with_problem(Problem())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"learning_rat": "1"}, "unknown hyperparameter 'learning_rat', did you mean 'learning_rate'?"),
        ({"prset": "smoke"}, "unknown hyperparameter 'prset', did you mean 'preset'?"),
        ({"learning.rate": "1"}, "unknown hyperparameter 'learning.rate', did you mean 'learning_rate'?"),
        (
            {"learning_rate": "5"},
            "hyperparameter learning_rate: 5 is out of range, allowed above 0 and at most 1",
        ),
        ({"seed": "10000"}, "hyperparameter seed: 10000 is out of range, allowed at least 0 and at most 9999"),
        ({"n_envs": "10000"}, "hyperparameter n_envs: 10000 is out of range, allowed at least 1 and at most 9999"),
        ({"n_envs": "many"}, "hyperparameter n_envs: expected a whole number, got 'many'"),
        ({"n_envs": "1.5"}, "hyperparameter n_envs: expected a whole number, got 1.5"),
        ({"n_envs": "true"}, "hyperparameter n_envs: expected a whole number, got 'true'"),
        ({"gamma": "NaN"}, "hyperparameter gamma: expected a finite number, got nan"),
        ({"calendar": "maybe"}, "hyperparameter calendar: expected true or false, got 'maybe'"),
        ({"activation": "elu"}, "hyperparameter activation: expected 'relu' or 'tanh', got 'elu'"),
        ({"action_steps": "3"}, "hyperparameter action_steps: expected a list, got 3"),
        ({"hidden_sizes": "[0]"}, "hyperparameter hidden_sizes[0]: 0 is out of range, allowed at least 1"),
        ({"hidden_sizes": "[]"}, "hyperparameter hidden_sizes: expected 1 or more items, got []"),
        (
            {"load_kind": "real"},
            "hyperparameter load_kind: expected 'synthetic', 'trace' or 'classic', got 'real'",
        ),
        ({"load_kind": "trace"}, "load_path: is missing"),
        ({"load_kind": "classic", "load_level": "1"}, "unknown hyperparameter 'load_level'"),
        (
            {"batch_size": "500"},
            "batch_size (500) does not divide the rollout of n_envs x n_steps = 256 x 32 = 8192 steps",
        ),
        ({"batch_size": "16384"}, "batch_size (16384) does not divide the rollout"),
        ({"total_steps": "4095"}, "total_steps (4095) is less than one rollout"),
        ({"fleet_initial_machines": "500"}, "initial_machines: 500 is outside min_machines..max_machines (1..120)"),
        ({"environment_id": "CartPole-v1"}, "set reward to 'reward' for CartPole-v1"),
        ({"preset": "smok"}, "unknown preset 'smok', did you mean 'smoke'?"),
    ],
)
def test_a_wrong_hyperparameter_is_refused_in_one_plain_line(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(PresetError) as error:
        resolve(DEFAULT, overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert "pydantic" not in str(error.value)


def test_every_problem_has_its_own_line() -> None:
    with pytest.raises(PresetError) as error:
        resolve(DEFAULT, {"gamma": "2", "sed": "1", "n_envs": "0"})
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert all(any(key in line for line in lines) for key in ("gamma", "sed", "n_envs"))


@settings(deadline=None, max_examples=60)
@given(key=st.sampled_from(sorted(DEFAULT.settings())), text=st.text(max_size=20) | st.from_regex(r"-?\d{1,30}|\[.*\]"))
def test_any_text_is_either_taken_or_refused_clearly(key: str, text: str) -> None:
    try:
        resolve(DEFAULT, {key: text})
    except PresetError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed("budget.sed", 1), "budget.sed: unknown key, did you mean 'seed'?"),
        (changed("budgt", 1), "budgt: unknown key, did you mean 'budget'?"),
        (changed("budget.seed", -1), "budget.seed: -1 is out of range"),
        (changed("budget", {"seed": 1}), "budget.total_steps: is missing"),
        (changed("metrics", ["eval_cst"]), "metrics: unknown metric 'eval_cst', the nearest is 'eval_cost_mean'"),
        (changed("name", "two words"), "name: "),
        (changed("algorithm.name", "dqn"), "algorithm.name: expected 'ppo', got 'dqn'"),
        (changed("environment", 3), "environment: expected a mapping, got 3"),
        (changed("environment.id", [1]), "environment.id: expected text, got [1]"),
        (changed("environment.kwargs.laod", 1), "environment.kwargs.laod: unknown key, did you mean 'load'?"),
        (changed("environment.kwargs.load.levl", 1), "environment.kwargs.load.levl: unknown key, did you mean 'level'"),
        (changed("environment.kwargs.load", {"kind": "real"}), "environment.kwargs.load: kind: expected 'synthetic'"),
        (changed("environment.kwargs.load", {}), "environment.kwargs.load: kind is missing"),
        (
            changed("budget.seed", {"default": 5, "sweep": {"min": 7, "max": 9}}),
            "budget.seed.sweep: does not hold the default, 5",
        ),
        (changed("budget.seed", {"default": 5, "sweep": {"min": 9, "max": 7}}), "min (9.0) is not below max (7.0)"),
        (
            changed("budget.seed", {"default": 5, "sweep": {"min": 0, "max": 7, "scale": "log"}}),
            "min (0.0) must be above 0 on a log scale",
        ),
        (
            changed("budget.seed", {"default": 5, "sweep": {"min": 0, "max": 10_000}}),
            "budget.seed.sweep: seed: 10000.0 is out of range",
        ),
        (changed("budget.seed", {"default": 5, "sweep": {"values": [5, "x"]}}), "expected a whole number, got 'x'"),
        (changed("budget.seed", {"default": 5, "sweep": {"values": []}}), "values: expected 1 or more items"),
        (changed("budget.seed", {"default": 5, "sweep": None}), "budget.seed.sweep: expected a mapping, got None"),
        (
            changed("name", {"default": "a", "sweep": {"values": ["a"]}}),
            "name.sweep: no hyperparameter sets this value, so it cannot be swept",
        ),
    ],
)
def test_a_wrong_preset_is_refused_with_the_path_of_the_key(data: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError) as error:
        Preset.parse(data)
    assert message in str(error.value)
    assert "pydantic" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping, got NoneType"),
        ("[1]", "expected a mapping, got list"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("a: &a\n  b: *a", "nested more than 32 deep"),
        ("x" * (2 << 20), "larger than"),
        ("name: x", "description: is missing"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(PresetError, match=r"mine\.yaml: ") as error:
        load_preset(path)
    assert message in str(error.value)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"mine\.yaml: cannot be read: No such file"):
        load_preset(tmp_path / "mine.yaml")
