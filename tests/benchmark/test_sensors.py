"""Sensors, read from trees of files as Linux has them; a machine without them says null."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecv.benchmark.sensors import changes, energy_uj, read

KEYS = {"frequency_mhz", "governor", "temperature_c", "throttled", "load_average"}
NOTHING = dict.fromkeys(KEYS)

Tree = Callable[[dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """tree({path: text}) -> a folder that holds these files."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


CPU = "sys/devices/system/cpu"
BOARD = {
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "1800000\n",
    f"{CPU}/cpu10/cpufreq/scaling_cur_freq": "2400000\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n",
    f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "3\n",
    f"{CPU}/cpu1/thermal_throttle/core_throttle_count": "4\n",
    "sys/class/thermal/thermal_zone0/temp": "48500\n",
    "sys/class/thermal/thermal_zone1/temp": "61250\n",
    "sys/class/thermal/cooling_device0/cur_state": "9\n",
    "proc/loadavg": "0.52 0.48 0.44 1/123 4567\n",
    "proc/cpuinfo": "processor\t: 0\ncpu MHz\t\t: 999.000\n",
}


def test_a_board_with_every_sensor(tree: Tree) -> None:
    root = tree(BOARD)
    assert read(root / "sys", root / "proc") == {
        "frequency_mhz": 1900.0,
        "governor": "ondemand",
        "temperature_c": 61.25,
        "throttled": 7,
        "load_average": 0.52,
    }


def test_without_any_everything_is_null(tmp_path: Path) -> None:
    assert read(tmp_path / "sys", tmp_path / "proc") == NOTHING
    assert energy_uj(tmp_path / "sys") is None


def test_without_cpufreq_the_clock_is_that_of_cpuinfo(tree: Tree) -> None:
    text = "processor\t: 0\ncpu MHz\t\t: 2000.000\n\nprocessor\t: 1\ncpu MHz\t\t: 2500.500\n"
    root = tree({"proc/cpuinfo": text})
    assert read(root / "sys", root / "proc") == {**NOTHING, "frequency_mhz": 2250.2}


def test_a_processor_that_was_never_throttled_says_0(tree: Tree) -> None:
    root = tree({f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "0\n"})
    assert read(root / "sys", root / "proc")["throttled"] == 0


def test_what_is_no_number_is_null_and_hides_no_other(tree: Tree) -> None:
    root = tree(
        {
            f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "<unknown>\n",
            f"{CPU}/cpu0/thermal_throttle/core_throttle_count": "",
            "sys/class/thermal/thermal_zone0/temp": "hot\n",
            "sys/class/thermal/thermal_zone1/temp": "40000\n",
            "proc/cpuinfo": "model name : something\n",
            "proc/loadavg": "",
        }
    )
    (root / "sys/class/thermal/thermal_zone2/temp").mkdir(parents=True)  # cannot be read
    assert read(root / "sys", root / "proc") == {**NOTHING, "temperature_c": 40.0}


@pytest.mark.parametrize(
    "files", [{"proc/cpuinfo": "cpu MHz : unknown\n"}, {"proc/loadavg": "none\n"}]
)
def test_proc_files_that_hold_no_number_are_null_too(tree: Tree, files: dict[str, str]) -> None:
    root = tree(files)
    assert read(root / "sys", root / "proc") == NOTHING


def test_this_machine_has_the_documented_keys() -> None:
    here = read()
    json.dumps(here, allow_nan=False)
    assert set(here) == KEYS
    for key in KEYS - {"governor"}:
        assert here[key] is None or here[key] >= 0, key
    assert here["governor"] is None or here["governor"].strip() == here["governor"] != ""
    energy = energy_uj()
    assert energy is None or energy >= 0


# energy

RAPL = "sys/class/powercap"


def test_energy_is_of_packages_not_of_their_parts(tree: Tree) -> None:
    root = tree(
        {
            f"{RAPL}/intel-rapl:0/energy_uj": "1000\n",
            f"{RAPL}/intel-rapl:0/name": "package-0\n",
            f"{RAPL}/intel-rapl:1/energy_uj": "20000\n",
            f"{RAPL}/intel-rapl:1/name": "package-1\n",
            f"{RAPL}/intel-rapl:0:0/energy_uj": "700\n",
            f"{RAPL}/intel-rapl:0:0/name": "core\n",
            f"{RAPL}/dtpm/energy_uj": "5\n",
        }
    )
    assert energy_uj(root / "sys") == 21000
    (root / RAPL / "intel-rapl:0/energy_uj").write_text("1500\n")
    assert energy_uj(root / "sys") == 21500, "read anew every time"


def test_ten_packages_are_ten(tree: Tree) -> None:
    root = tree({f"{RAPL}/intel-rapl:{i}/energy_uj": "1\n" for i in range(11)})
    assert energy_uj(root / "sys") == 11


@pytest.mark.parametrize(
    ("zone", "name"), [("intel-rapl-mmio:0", "package-0"), ("intel-rapl:1", "psys")]
)
def test_a_package_that_is_counted_elsewhere_is_not_counted_twice(
    tree: Tree, zone: str, name: str
) -> None:
    """The same package through memory-mapped registers; a platform holds its packages."""
    root = tree(
        {
            f"{RAPL}/intel-rapl:0/energy_uj": "1000\n",
            f"{RAPL}/intel-rapl:0/name": "package-0\n",
            f"{RAPL}/{zone}/energy_uj": "1000\n",
            f"{RAPL}/{zone}/name": f"{name}\n",
        }
    )
    assert energy_uj(root / "sys") == 1000


def test_counters_that_cannot_be_read_are_no_counters(tree: Tree) -> None:
    root = tree({f"{RAPL}/intel-rapl:0/energy_uj": "secret\n"})
    (root / RAPL / "intel-rapl:1/energy_uj").mkdir(parents=True)
    assert energy_uj(root / "sys") is None


def test_a_counter_that_goes_away_is_null_not_less(tree: Tree) -> None:
    root = tree({f"{RAPL}/intel-rapl:{i}/energy_uj": "10\n" for i in range(2)})
    assert energy_uj(root / "sys") == 20
    (root / RAPL / "intel-rapl:1/energy_uj").unlink()
    assert energy_uj(root / "sys") is None


# what happened meanwhile


def reading(**found: Any) -> dict[str, Any]:
    return {**NOTHING, **found}


def test_a_calm_machine_is_not_spoken_of() -> None:
    assert changes(NOTHING, NOTHING) == []
    calm = reading(frequency_mhz=2000.0, governor="performance", throttled=7, temperature_c=50.0)
    later = {**calm, "frequency_mhz": 2250.0, "temperature_c": 70.0}
    assert changes(calm, later) == []


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ({"throttled": 3}, {"throttled": 8}, "throttled by heat 5 times"),
        ({"frequency_mhz": 2000.0}, {"frequency_mhz": 1600.0}, "from 2000 to 1600 MHz"),
        ({"frequency_mhz": 1600.0}, {"frequency_mhz": 2000.0}, "from 1600 to 2000 MHz"),
        ({"governor": "powersave"}, {"governor": "powersave"}, "governor is 'powersave'"),
    ],
)
def test_what_makes_milliseconds_untrustworthy_is_said(
    before: dict[str, Any], after: dict[str, Any], says: str
) -> None:
    (sentence,) = changes(reading(**before), reading(**after))
    assert says in sentence


def test_a_sensor_that_goes_away_is_no_finding() -> None:
    assert changes(reading(throttled=3), reading(throttled=None)) == []


def test_everything_at_once_is_a_sentence_each() -> None:
    before = reading(frequency_mhz=2000.0, governor="powersave", throttled=0)
    after = reading(frequency_mhz=900.0, governor="powersave", throttled=1)
    assert len(changes(before, after)) == 3
