import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training_src.envs import trace as trace_module
from training_src.envs.trace import Trace, TraceError, read_trace, scale_for, split_days

START = datetime(2026, 1, 5, tzinfo=UTC)
REAL_TRACES = Path(__file__).parents[5] / "shared" / "traces"
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(rows: list[tuple[object, object]] | str, header: str = "timestamp,value\n") -> Path:
        path = tmp_path / "trace.csv"
        text = rows if isinstance(rows, str) else "".join(f"{stamp},{value}\n" for stamp, value in rows)
        path.write_text(header + text)
        return path

    return write


def regular(n: int, seconds: float, value: Callable[[int], float]) -> list[tuple[object, object]]:
    return [((START + timedelta(seconds=i * seconds)).strftime("%Y-%m-%d %H:%M:%S"), value(i)) for i in range(n)]


def hours(n: int) -> list[tuple[object, object]]:
    return regular(n, 3600, lambda hour: float(hour % 24 + 1))


def test_values_at_the_step_are_kept_as_they_are(write: Write) -> None:
    trace = read_trace(write(regular(2880, 60, lambda i: i % 7)))
    assert trace.load.dtype == np.float32
    assert trace.load.tolist() == [i % 7 for i in range(2880)]
    assert (trace.start, trace.step_seconds, trace.interval_seconds) == (START, 60, 60.0)


def test_the_load_cannot_be_changed_by_mistake(write: Write) -> None:
    with pytest.raises(ValueError, match="read-only"):
        read_trace(write(hours(48))).load[0] = 1.0


def test_coarse_rates_are_joined_by_lines_and_the_last_holds_for_its_interval(write: Write) -> None:
    trace = read_trace(write(regular(300, 300, lambda i: 10.0 * i)))
    assert trace.load[:6].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert len(trace.load) == 1500
    assert trace.load[-5:].tolist() == [2990.0] * 5


def test_coarse_counts_are_divided_by_the_steps_of_their_interval(write: Write) -> None:
    trace = read_trace(write(regular(300, 300, lambda i: 50.0)), values="count")
    assert set(trace.load.tolist()) == {10.0}


def test_fine_rates_are_averaged_and_fine_counts_summed_within_each_step(write: Write) -> None:
    path = write(regular(6000, 15, lambda i: i % 4))
    assert set(read_trace(path, values="rate").load.tolist()) == {1.5}
    assert set(read_trace(path, values="count").load.tolist()) == {6.0}
    assert len(read_trace(path).load) == 1500


def test_steps_start_at_multiples_of_the_step_and_partial_ones_are_left_out(write: Write) -> None:
    rows = [(START.timestamp() + 40 + 15 * i, 1) for i in range(6000)]
    trace = read_trace(write(rows))
    assert trace.start == START + timedelta(minutes=1)
    assert len(trace.load) == 1499


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S+00:00", "unix"])
def test_the_three_forms_of_timestamps_mean_the_same(write: Write, form: str) -> None:
    times = [START + timedelta(hours=i) for i in range(48)]
    rows = [(f"{t.timestamp():.0f}" if form == "unix" else t.strftime(form), i) for i, t in enumerate(times)]
    trace = read_trace(write(rows))
    assert trace.start == START
    assert trace.load[60 * 47] == 47.0


def test_an_offset_is_converted_to_utc(write: Write) -> None:
    rows = [((START + timedelta(hours=i)).strftime("%Y-%m-%dT%H:%M:%S+02:00"), i) for i in range(48)]
    assert read_trace(write(rows)).start == START - timedelta(hours=2)


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    text = "Timestamp, Value\r\n" + "".join(f"{stamp},{value}\r\n" for stamp, value in hours(30))
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_trace(path).report.rows == 30


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_rows_does_not_matter(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rows = hours(40)
    shuffled = random.Random(seed).sample(rows, len(rows))
    loads = []
    for name, some in (("a.csv", rows), ("b.csv", shuffled)):
        path = tmp_path_factory.getbasetemp() / name
        path.write_text("timestamp,value\n" + "".join(f"{stamp},{value}\n" for stamp, value in some))
        loads.append(read_trace(path).load)
    assert np.array_equal(*loads)


def test_duplicates_are_averaged_and_reported_with_blank_and_unordered_rows(write: Write) -> None:
    rows = hours(48)
    rows[5] = (rows[5][0], "")
    rows[10], rows[11] = rows[11], rows[10]
    rows.append((rows[0][0], 3.0))
    trace = read_trace(write(rows))
    assert trace.load[0] == 2.0
    report = trace.report
    assert (report.rows, report.duplicates, report.missing, report.out_of_order) == (49, 1, 1, 2)
    assert "49 rows, 2 out of order (sorted), 1 with a timestamp seen before (averaged), 1 without a value" in str(
        report
    )


def test_a_difference_of_one_and_a_half_intervals_is_not_a_gap(write: Write) -> None:
    rows = [(START.timestamp() + 60 * i, 1) for i in range(1500)]
    rows[700] = (START.timestamp() + 60 * 700 + 30, 1)
    assert read_trace(write(rows)).report.gaps == ()


def test_a_gap_of_up_to_an_hour_is_bridged_by_a_line(write: Write) -> None:
    rows = regular(2880, 60, float)
    del rows[1001:1060]
    trace = read_trace(write(rows))
    assert trace.load.tolist() == list(range(2880))
    (gap,) = trace.report.gaps
    assert gap.start == START + timedelta(minutes=1000)
    assert gap.end == START + timedelta(minutes=1060)
    assert gap.filled == "by a line"
    assert "gap 2026-01-05 16:40:00 to 2026-01-05 17:40:00 UTC, filled by a line" in str(trace.report)


def test_a_gap_of_two_intervals_is_bridged_even_if_longer_than_an_hour(write: Write) -> None:
    rows = hours(48)
    del rows[20]
    assert [gap.filled for gap in read_trace(write(rows)).report.gaps] == ["by a line"]


def test_a_long_gap_takes_the_same_time_of_the_nearest_earlier_day(write: Write) -> None:
    rows = regular(3 * 1440, 60, lambda i: 1000.0 * (i // 1440) + i % 1440)
    del rows[2 * 1440 + 600 : 2 * 1440 + 700]
    trace = read_trace(write(rows))
    assert trace.load[2 * 1440 + 600 : 2 * 1440 + 700].tolist() == [1000.0 + i for i in range(600, 700)]
    assert [gap.filled for gap in trace.report.gaps] == ["from other days"]


def test_a_long_gap_on_the_first_day_takes_the_nearest_later_day(write: Write) -> None:
    rows = regular(3 * 1440, 60, lambda i: 1000.0 * (i // 1440) + i % 1440)
    del rows[600:700]
    trace = read_trace(write(rows))
    assert trace.load[600:700].tolist() == [1000.0 + i for i in range(600, 700)]


def test_a_gap_is_not_filled_from_another_gap(write: Write) -> None:
    rows = regular(3 * 1440, 60, lambda i: float(i // 1440))
    del rows[2 * 1440 + 600 : 2 * 1440 + 700]
    del rows[1440 + 600 : 1440 + 700]
    assert read_trace(write(rows)).load[2 * 1440 + 650] == 0.0


def test_a_gap_whose_time_no_day_knows_is_bridged_by_a_line_there(write: Write) -> None:
    rows = regular(1440 + 660, 60, float)
    del rows[601:800]
    trace = read_trace(write(rows))
    assert [gap.filled for gap in trace.report.gaps] == ["from other days, the rest by a line"]
    assert trace.load[610] == 1440 + 610
    assert trace.load[700] == 700.0


def test_a_long_gap_of_a_fine_trace_is_filled_from_other_days(write: Write) -> None:
    rows = regular(3 * 5760, 15, lambda i: float(i // 5760))
    del rows[2 * 5760 + 2001 : 2 * 5760 + 3000]
    trace = read_trace(write(rows))
    assert trace.load[2880 + 499 : 2880 + 502].tolist() == [2.0, 2.0, 1.0]
    assert trace.load[2880 + 749 : 2880 + 752].tolist() == [1.0, 2.0, 2.0]


@settings(max_examples=25, deadline=None)
@given(missing=st.sets(st.integers(1, 94), max_size=80))
def test_whatever_is_missing_every_step_has_a_load_between_the_known_ones(
    tmp_path_factory: pytest.TempPathFactory, missing: set[int]
) -> None:
    rows = [row for i, row in enumerate(regular(96, 1800, lambda i: 5.0 + i % 11)) if i not in missing]
    path = tmp_path_factory.getbasetemp() / "missing.csv"
    path.write_text("timestamp,value\n" + "".join(f"{stamp},{value}\n" for stamp, value in rows))
    trace = read_trace(path)
    assert len(trace.load) >= 95 * 30
    known = [float(str(value)) for _, value in rows]
    assert min(known) <= trace.load.min()
    assert trace.load.max() <= max(known)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: the file is empty; its first line must be timestamp,value"),
        ("2026-01-05 00:00,1\n", r"line 1: expected the header timestamp,value, got '2026-01-05 00:00,1'"),
        ("timestamp;value\n", r"line 1: expected the header timestamp,value, got 'timestamp;value'"),
        ("timestamp,value\n", r"no rows below the header"),
        ("timestamp,value\n2026-01-05,1\n\n2026-01-06,many\n", r"line 4: value 'many' is not a finite number"),
        ("timestamp,value\n2026-01-05,nan\n", r"line 2: value 'nan' is not a finite number"),
        ("timestamp,value\n2026-01-05,inf\n", r"line 2: value 'inf' is not a finite number"),
        ("timestamp,value\n2026-01-05,1_000\n", r"line 2: value '1_000' is not a finite number"),
        ("timestamp,value\n2026-01-05,-1\n", r"line 2: value '-1' is negative"),
        ("timestamp,value\n2026-01-05,1e13\n", r"line 2: value '1e13' is above 1e\+12"),
        ("timestamp,value\nyesterday,1\n", r"line 2: cannot read timestamp 'yesterday'; write it as"),
        ("timestamp,value\n05/01/2026,1\n", r"line 2: cannot read timestamp '05/01/2026'"),
        ("timestamp,value\n,1\n", r"line 2: cannot read timestamp ''"),
        ("timestamp,value\n1767571200000,1\n", r"line 2: .* seconds since 1970, not milliseconds"),
        ("timestamp,value\n0202-01-01,1\n", r"line 2: timestamp '0202-01-01' is not between 1970 and 2200"),
        ("timestamp,value\n2026-01-05,1\n2026-01-06T00:00Z,1\n", r"line 3: .* with an offset, those above are .*with"),
        ("timestamp,value\n2026-01-05,1\n1767657600,1\n", r"line 3: .* is a number of seconds, those above"),
        ("timestamp,value\n2026-01-05,1,2\n", r"line 2: expected 2 columns \(timestamp,value\), got 3"),
        ("timestamp,value\n2026-01-05,1\n", r"fewer than 2 different timestamps"),
        ("timestamp,value\n2026-01-05,1\n2026-01-05,2\n", r"fewer than 2 different timestamps"),
        ("timestamp,value\n2026-01-05,\n2026-01-06,\n", r"no row has a value"),
        ("timestamp,value\n2026-01-05 00:00,1\n2026-01-05 06:00,1\n", r"covers 12.0 hours; give a trace of at least"),
        ("timestamp,value\n1970-01-01,1\n2026-01-05,1\n2026-01-06,1\n", r"1970-01-01 .*\(line 2\) to .*\(line 4\)"),
        ("timestamp,value\n" + "x" * 200_000 + ",1\n", r"line 2: field larger than field limit"),
    ],
)
def test_a_wrong_trace_is_refused_with_its_name_and_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=r"trace\.csv.*" + message):
        read_trace(path)


def test_a_file_that_is_not_text_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"timestamp,value\n2026-01-05,1\n2026-01-06,\xff\xfe\n")
    with pytest.raises(TraceError, match="line 3: value"):
        read_trace(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"nowhere\.csv: no such file"):
        read_trace(tmp_path / "nowhere.csv")
    with pytest.raises(TraceError, match="is a folder"):
        read_trace(tmp_path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    with path.open("wb") as file:
        file.truncate(trace_module.MAX_BYTES + 1)  # sparse: takes no space
    with pytest.raises(TraceError, match="more than 256 MiB"):
        read_trace(path)


def test_the_first_share_of_whole_days_is_for_training(write: Write) -> None:
    assert split_days(read_trace(write(hours(14 * 24 + 5)))) == (8, 14)
    assert split_days(read_trace(write(hours(48)))) == (1, 2)
    assert split_days(read_trace(write(hours(10 * 24))), 0.7) == (7, 10)


@pytest.mark.parametrize(("n_hours", "share"), [(30, 0.6), (48, 1.0)])
def test_a_trace_without_a_day_for_each_part_is_refused(write: Write, n_hours: int, share: float) -> None:
    with pytest.raises(TraceError, match=r"trace\.csv: . whole day\(s\) cannot be split"):
        split_days(read_trace(write(hours(n_hours))), share)


def test_the_peak_of_the_training_part_needs_the_asked_number_of_machines(write: Write) -> None:
    rows = regular(2880, 60, lambda i: 400.0 if i < 1440 else 9_000.0)
    assert scale_for(read_trace(write(rows)), 1440) == pytest.approx(10.0)
    assert scale_for(read_trace(write(rows)), 1440, peak_machines=20) == pytest.approx(20.0)


def test_a_training_part_without_load_is_refused(write: Write) -> None:
    with pytest.raises(TraceError, match="has no load"):
        scale_for(read_trace(write(regular(2880, 60, lambda i: 0.0))), 1440)


@pytest.fixture(params=sorted(REAL_TRACES.glob("*.csv")) or [None], ids=lambda path: path.stem if path else "none")
def real_trace(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("the real traces are not beside this repository")
    path: Path = request.param
    return path


def test_real_traces_are_read_in_under_a_second(real_trace: Path) -> None:
    began = time.process_time()
    trace: Trace = read_trace(real_trace)
    assert time.process_time() - began < 1.0
    train_days, days = split_days(trace)
    assert train_days == int(0.6 * days) > 0
    assert np.isfinite(trace.load).all()
    assert scale_for(trace, train_days * 1440) > 0.0


def test_counts_of_a_real_trace_keep_their_total() -> None:
    path = REAL_TRACES / "aws_elb_request_count_5min.csv"
    if not path.exists():
        pytest.skip("the real traces are not beside this repository")
    trace = read_trace(path, values="count")
    assert len(trace.report.gaps) == 8
    total = np.loadtxt(path, delimiter=",", skiprows=1, usecols=1).sum()
    assert trace.load.sum() == pytest.approx(total, rel=0.01)
