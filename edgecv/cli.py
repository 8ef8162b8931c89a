"""The command line: parse, call, print. Heavy things are imported by the command that needs them.

argparse, so that `edgecv bench` and `edgecv verify` work on a device that has numpy and one engine.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from edgecv import __version__
from edgecv.errors import EdgecvError, not_installed, one_line
from edgecv.terminal import printable, shown

Handler = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """argparse whose errors are one line too; argparse puts the usage before them. It would also
    take the beginning of an option for the option: --size for --size-mb, a limit nobody set."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **{**named, "allow_abbrev": False})
        self._given: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._given = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        message = self._unknown(message) or message
        message, near = self._choice(message) or (message, self._near(message))
        command = self._command()
        hint = f"see {self.prog}{f' {command}' if command else ''} --help"
        hint = f"did you mean {' or '.join(near)}?" if near else hint
        hint = self._listed(message) or self._elsewhere(message) or hint
        self.exit(2, f"error: {self.prog}: {message} ({hint})\n")

    def _choice(self, message: str) -> tuple[str, list[str]] | None:
        """A word that is none of those an argument takes, and the nearest of these."""
        found = re.match(r"argument (.+?): invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if found is None:
            return None
        name, word, listed = found.groups()
        words = [w.strip(" '") for w in listed.split(",")]
        near = difflib.get_close_matches(word, words, 1)
        what = f"no command '{word}'" if name == "COMMAND" else f"{name}: '{word}' is not a choice"
        return f"{what}: {', '.join(words)}", near

    def _unknown(self, message: str) -> str | None:
        """The option that is in no command, where argparse speaks of what is missing: --targt."""
        if not message.startswith("the following arguments are required: --"):
            return None
        said = self._given[: self._given.index("--")] if "--" in self._given else self._given
        options = (word.partition("=")[0] for word in said if word.startswith("--"))
        unknown = [o for o in options if o not in self._option_string_actions]
        return f"unrecognized arguments: {unknown[0]}" if unknown else None

    def _listed(self, message: str) -> str | None:
        """Where blanks are written between numbers that commas hold together: --mean 1 2 3."""
        said = message.partition("unrecognized arguments: ")[2].split()
        if not said or said[0].startswith("--") or said[0] not in self._given:
            return None
        before = self._given[: self._given.index(said[0])]
        option = next((word for word in reversed(before) if word.startswith("--")), "")
        action = self._options().get(option)
        if action is None or "[," not in str(action.metavar):
            return None
        return f"{option} takes them in one word, with commas: {option} {action.metavar}"

    def _commands(self) -> dict[str, argparse.ArgumentParser]:
        return dict(self._subparsers._group_actions[0].choices or {}) if self._subparsers else {}

    def _command(self) -> str:
        """The one that was given; "" where it is none."""
        return next((word for word in self._given if word in self._commands()), "")

    def _options(self) -> dict[str, argparse.Action]:
        """Of the command that was given, else of every one."""
        commands = self._commands()
        given = self._command()
        several = [commands[given]] if given else [*commands.values()] or [self]
        return {o: action for c in several for o, action in c._option_string_actions.items()}

    def _elsewhere(self, message: str) -> str | None:
        """Where other commands than the given one have the option."""
        said = message.partition("unrecognized arguments: ")[2].split()
        given, option = self._command(), said[0].partition("=")[0] if said else ""
        if not given or not option.startswith("--") or option in self._options():
            return None
        known = self._commands().items()
        those = [name for name, c in known if option in c._option_string_actions]
        told = f"it is an option of {', '.join(those[:3])}{' and others' if those[3:] else ''}"
        return f"{told}; see {self.prog} {given} --help" if those else None

    def _near(self, message: str) -> list[str]:
        """Options like the one that is in no command."""
        said = message.partition("unrecognized arguments: --")[2].split()
        if not said:
            return []
        option = said[0].partition("=")[0]
        known = {o.removeprefix("--") for o in self._options() if o.startswith("--")}
        held = sorted(o for o in known if option in o.split("-"))
        return [f"--{o}" for o in held or difflib.get_close_matches(option, known, 1)][:3]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Errors are one line on stderr unless --traceback."""
    # Before numpy comes in: threads of its own spin beside the step that they are to help.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from edgecv.interrupts import Stopped, stoppable
    from edgecv.logs import quiet
    from edgecv.source_trust import telling

    parser = build_parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "handler"):
        parser.print_help()
        return 2
    quiet(options.verbose)
    try:
        with (
            stoppable(),
            shown(getattr(options, "json", False)),
            telling(getattr(options, "trust", False)),
        ):
            return int(options.handler(options))
    except EdgecvError as e:
        if options.traceback:
            traceback.print_exc()
        hint = f"\n  hint: {e.hint}" if e.hint and sys.stderr.isatty() else ""
        line = f"{e.where}: {e.what}" if hint else str(e)
        print(printable(f"error: {line}{hint}"), file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt as e:
        resumes = getattr(options, "resumes", False)
        again = ": the same command goes on where this one stopped" if resumes else ""
        said = "stopped" if isinstance(e, Stopped) else "interrupted"
        print(f"{said}{again}", file=sys.stderr)
        return e.exit_code if isinstance(e, Stopped) else 130
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Keep the exit from flushing into the void.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as e:
        if options.traceback:
            traceback.print_exc()
        place = e.filename or "output"
        print(printable(f"error: {place}: {e.strerror or e}"), file=sys.stderr)
        return 2
    except ModuleNotFoundError as e:
        if (e.name or "edgecv").partition(".")[0] == "edgecv":
            return _bug(e, options.traceback)
        error = not_installed(e.name or "", f"edgecv {options.command}")
        print(printable(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except Exception as e:
        return _bug(e, options.traceback)


def _bug(error: Exception, trace: bool) -> int:
    if trace:
        traceback.print_exc()
    first = printable(one_line(error))
    print(
        f"error: edgecv {__version__}: {type(error).__name__}: {first} "
        "(a bug: please report it with the output of the same command and --traceback)",
        file=sys.stderr,
    )
    return 70


def build_parser() -> Parser:
    """Every command with its options."""
    from edgecv.commands import (
        bench,
        completion,
        doctor,
        export,
        gate,
        inspect,
        parity,
        plan,
        predict,
        report,
        run,
        stages,
        targets,
        verify,
        why,
    )

    common = Parser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error was raised")
    common.add_argument("-v", "--verbose", action="store_true", help="log what happens inside")
    parser = Parser(
        prog="edgecv",
        description="Compress a vision network, compile it for a small machine, and prove both.",
        epilog="Exit codes: 0 done, 1 a gate or budget was not met, 2 the input is wrong, "
        "3 something is not installed, 4 inconclusive, 70 a bug, 130 interrupted, "
        "143 and 129 stopped by SIGTERM and SIGHUP.",
    )
    parser.add_argument("--version", action="version", version=f"edgecv {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, handler: Handler, help_: str, json_: bool = True) -> Any:
        made = commands.add_parser(name, help=help_, description=help_, parents=[common])
        made.set_defaults(handler=handler, root=parser, command=name)
        if json_:
            made.add_argument("--json", action="store_true", help="print JSON instead of a table")
        return made

    for module in (
        run, plan, export, bench, why, parity, verify, inspect, predict, gate, report, targets,
        stages, doctor, completion,
    ):  # fmt: skip
        module.register(command)
    return parser
