"""The error tree. Every failure a user can cause is one of these, and says three things.

    EdgecvError(where, what, hint)          exit code
    ├── RecipeError         2   a recipe, an option or a parameter is wrong
    ├── DataError           2   images, labels or arrays are wrong
    ├── ModelError          2   a network, a Model folder or an ONNX file is wrong
    ├── TargetError         2   an unknown target, or one that cannot do what was asked
    ├── UnsupportedError    2   a layer or a feature that the engine cannot run
    ├── StageError          2   a stage could not finish (NaN loss, diverged)
    ├── StoreError          2   results could not be written (full disk)
    ├── BundleError         2   a bundle is damaged, or from a newer edgecv
    ├── TrustError          2   a bundle is source code, and nobody said that it is trusted
    ├── MissingExtraError   3   something is not installed; the hint is the cure
    ├── NoCudaDevice        3   the engine needs a GPU and there is none
    ├── DeviceError         2   a device cannot be reached, or lacks what is needed
    ├── DeviceLostError     4   a device vanished in the middle
    ├── EngineError         1   an engine's own code crashed or refused
    ├── ParityError         1   a step's output differs from the step before beyond tolerance
    │   └── NotFiniteError  2   what the step was given answers NaN or infinity itself
    └── BudgetError         1   a limit that the user set was not met

Exit codes: 0 done, 1 a gate, a check or a budget was not met, 2 the input is wrong,
3 something is not installed, 4 inconclusive, 70 a bug in edgecv, 130 interrupted (Ctrl-C), 143 and
129 stopped by SIGTERM and SIGHUP.

This module is imported on devices: the standard library only.
"""

from __future__ import annotations

MOST = 2000  # characters of each part of a message: a value that is shown may be a whole file
# A value from a file may hold what a terminal obeys, or what ends a line of a log: shown as \x1b.
_CONTROLS = {c: repr(chr(c))[1:-1] for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}


def _bounded(text: str) -> str:
    text, half = text.translate(_CONTROLS), MOST // 2
    return text if len(text) <= MOST else f"{text[:half]} ... {text[-half:]}"


class EdgecvError(Exception):
    """A failure with a place, a fact and a way out.

    where: the file, key, step or layer concerned ("recipe.yaml: stages[1].prune.ratio")
    what:  what is wrong there, with the value seen
    hint:  what to do about it; may be empty
    """

    exit_code = 1

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        super().__init__(where, what, hint)
        self.where, self.what, self.hint = (_bounded(str(v)) for v in (where, what, hint))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}"
        return f"{line} ({self.hint})" if self.hint else line


def one_line(error: BaseException, most: int = 300) -> str:
    """The first `most` characters of somebody else's message, on one line; the kind of error where
    it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


class RecipeError(EdgecvError):
    """A recipe, an option or a parameter is wrong."""

    exit_code = 2


class DataError(EdgecvError):
    """Images, labels or arrays are wrong."""

    exit_code = 2


class ModelError(EdgecvError):
    """A network, a Model folder or an ONNX file is wrong."""

    exit_code = 2


class TargetError(EdgecvError):
    """An unknown target, or one that cannot do what was asked of it."""

    exit_code = 2


class UnsupportedError(EdgecvError):
    """A layer or a feature that the engine cannot run."""

    exit_code = 2


class StageError(EdgecvError):
    """A stage could not finish: NaN weights, NaN loss, divergence."""

    exit_code = 2


class StoreError(EdgecvError):
    """Results could not be written: a full disk, no permission."""

    exit_code = 2


class BundleError(EdgecvError):
    """A bundle is damaged, incomplete, or from a newer edgecv."""

    exit_code = 2


class DeviceError(EdgecvError):
    """A device cannot be reached (address, key, host key), or lacks Python, numpy or room."""

    exit_code = 2


class DeviceLostError(EdgecvError):
    """A device was reached and vanished in the middle of the work."""

    exit_code = 4


class TrustError(EdgecvError):
    """A bundle is source code, and nobody said that its maker is trusted."""

    exit_code = 2


class MissingExtraError(EdgecvError):
    """Something is not installed; the hint is the command that brings it."""

    exit_code = 3


class NoCudaDevice(EdgecvError):  # noqa: N818 - a state of the machine, as its users call it
    """The engine needs an NVIDIA GPU and this machine has none."""

    exit_code = 3


class EngineError(EdgecvError):
    """An engine's own code crashed, or refused its input."""

    exit_code = 1


class ParityError(EdgecvError):
    """A step's outputs differ from the step before it beyond tolerance."""

    exit_code = 1


class NotFiniteError(ParityError):
    """What a step was given answers NaN or infinity itself: the step is not to blame."""

    exit_code = 2


class BudgetError(EdgecvError):
    """A limit that the user set (time, accuracy, size) was not met."""

    exit_code = 1


# A module of no engine -> the extra that brings it; the rest is in "compress".
_EXTRAS = {"jinja2": "report"}


def not_installed(module: str, where: str) -> MissingExtraError:
    """The error for a module that could not be imported."""
    from edgecv.backends import every

    name, extras = module.partition(".")[0], dict(_EXTRAS)
    for said in every().values():
        extras |= said.extras
    return missing(name, extras.get(name, "compress"), where)


def missing(package: str, extra: str, where: str = "edgecv") -> MissingExtraError:
    """The error for a package that is not installed, with the command that brings it here."""
    from edgecv.installation import cure

    return MissingExtraError(where, f"{package} is not installed", cure(extra, package))
