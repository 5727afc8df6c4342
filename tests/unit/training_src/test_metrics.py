import math
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_src.metrics import METRICS, format_line, metric_definitions, parse

NAMES = [metric.name for metric in METRICS]
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.sampled_from(NAMES), FINITE | st.integers(-(10**15), 10**15), min_size=1))
def test_every_finite_value_is_read_back_equal_from_its_line(values: dict[str, float]) -> None:
    assert dict(parse(format_line(values))) == values


@given(st.sampled_from(NAMES), FINITE, st.text(st.characters(exclude_characters="="), max_size=30))
def test_a_value_is_found_behind_other_text_on_the_line(name: str, value: float, noise: str) -> None:
    assert list(parse(f"{noise} | {format_line({name: value})}")) == [(name, value)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_left_out_and_the_line_stays_valid(value: float) -> None:
    assert format_line({"eval_cost_mean": value, "eval_reward_mean": 1.5}) == "eval_reward_mean=1.5;"
    assert format_line({"eval_cost_mean": value}) == ""


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(KeyError, match="eval_cost_man"):
        format_line({"eval_cost_man": 1.0})


def test_a_name_does_not_match_inside_a_longer_name() -> None:
    assert list(parse("my_train_entropy=1.0; xtrain_entropy=2.0; train_entropy_old=3.0; train_entropy=4.0;")) == [
        ("train_entropy", 4.0)
    ]


def test_an_unfinished_value_is_not_read() -> None:
    assert list(parse("train_entropy=1.2")) == []


def test_definitions_keep_to_the_limits_of_the_api() -> None:
    definitions = metric_definitions()
    assert [definition["Name"] for definition in definitions] == NAMES
    assert len(set(NAMES)) == len(NAMES) <= 40
    for definition in definitions:
        assert re.fullmatch(r"[A-Za-z0-9_:]{1,255}", definition["Name"])
        assert len(definition["Regex"]) <= 500
        assert re.compile(definition["Regex"]).groups == 1


def test_every_metric_says_its_unit_and_meaning() -> None:
    assert all(metric.unit and metric.description for metric in METRICS)


def test_the_module_imports_the_standard_library_only() -> None:
    code = (
        "import sys; import training_src.metrics;"
        "print(*{name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'})"
    )
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'); {code}"],
                            capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert loaded == ["training_src"]
