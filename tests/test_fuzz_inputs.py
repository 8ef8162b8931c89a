"""The short form of the fuzzers (benchmarks/fuzz_*.py)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def fuzzers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fuzz_bundles
    import fuzz_images
    import fuzz_recipes
    import fuzz_results
    import fuzz_sources
    import fuzzing

    return {"recipes": fuzz_recipes, "images": fuzz_images, "bundles": fuzz_bundles,
            "results": fuzz_results, "sources": fuzz_sources, "frame": fuzzing}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("kind", "count"),
    [("recipes", 150), ("images", 250), ("bundles", 300), ("results", 400), ("sources", 150)],
)
def test_damaged_inputs_are_taken_or_refused_in_a_sentence(fuzzers, kind, count):
    module = fuzzers[kind]
    assert not fuzzers["frame"].faults(module.cases, module.check, 7, count)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["recipes", "images", "bundles", "results", "sources"])
def test_the_same_seed_gives_the_same_inputs_and_some_of_each_outcome(fuzzers, kind):
    from edgecv.errors import EdgecvError

    module, taken, refused = fuzzers[kind], 0, 0
    made = list(module.cases(3, 80))
    assert made == list(module.cases(3, 80))
    for case in made:
        try:
            module.check(case)
            taken += 1
        except EdgecvError:
            refused += 1
    assert taken > 2
    assert refused > 2


def test_faults_are_seen(fuzzers):
    """What is not met as it should be is told: the frame itself can fail."""
    fault = fuzzers["frame"].fault

    def raises(error):
        def check(_):
            raise error

        return check

    from edgecv.errors import DataError

    class RawError(DataError):
        def __str__(self) -> str:
            return str(self.args[1])  # as it was given

    assert "KeyError at check" in fault(raises(KeyError("x")), None)
    assert "speaks" in fault(raises(DataError("a", "ValueError: bad")), None)
    assert "speaks" in fault(raises(RawError("a", "\x1b[2J")), None)
    assert fault(raises(DataError("a", "\x1b[2J")), None) == ""  # shown as \x1b
    assert fault(raises(DataError("a", "is empty")), None) == ""


def test_an_input_that_takes_too_long_is_seen():
    """In a process of its own: engines' threads of other tests take part in a process's timer."""
    code = (
        "import fuzzing\nfuzzing.LIMIT_S = 0.2\ndef spin(_):\n    while True: pass\n"
        "print(fuzzing.fault(spin, None))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}, timeout=120,
    )  # fmt: skip
    assert done.stdout == "more than 0.2 s\n", done.stderr
