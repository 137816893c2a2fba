"""The ``flyball`` command. In: arguments. Out: results on stdout, everything else on stderr, an exit code.

0 done; 1 the answer is no; 2 the input was bad or something is missing here; 3 done with losses that are listed;
70 a defect in Flyball itself. An error is one line on stderr: what, where, what is allowed, what to run next.
A verb is one module of this package with ``add_arguments(parser)`` and ``run(args, out) -> exit code``; it is imported
only when it is called, so that ``flyball --help`` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from flyball import __version__
from flyball.apps.cli.output import Output
from flyball.base import FlyballError, InputError, Missing

VERBS = {
    "demo": "close the loop on a virtual fleet, in front of you",
    "ingest": "turn logs into episodes",
    "salvage": "save what is intact of a damaged MCAP file",
    "curate": "check episodes, and keep verdicts that can be taken back",
    "calibrate": "fit a scene's parameters to episodes",
    "drift": "say which robots have changed since they were calibrated",
    "explain": "say why attempts failed, and what would have held",
    "evaluate": "try policies on the same worlds in several physics engines",
    "episodes": "ask for episodes, look at one, find more like it",
    "datasets": "build, compare, verify, export and import datasets",
    "reports": "list reports, or show one",
    "robots": "list robots and the models found here, or check models",
    "scenes": "look at USD scenes, check and compose them, and turn models into USD and back",
    "tasks": "list tasks, or the parameters of one",
    "variations": "draw worlds from a file of variations",
    "engines": "list physics engines, or check them against mechanics",
    "picture": "draw what a camera sees of a model or a task",
    "doctor": "check this machine and a workspace",
}

EPILOG = "exit codes: 0 done, 1 the answer is no, 2 bad input, 3 done with losses that are listed"


class _Parser(argparse.ArgumentParser):
    """argparse whose refusals are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message.replace("argument ", ""), where=self.prog, run_next=f"{self.prog} --help")


def _parser(verb: str | None) -> _Parser:
    top = _Parser(prog="flyball", description="Closes the loop around a robot fleet.", epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"flyball {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, parser_class=_Parser)
    for name, text in VERBS.items():
        p = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=EPILOG)
        if name == verb:
            importlib.import_module(f"flyball.apps.cli.{name}").add_arguments(p)
        p.add_argument(
            "--workspace",
            type=Path,
            default=Path(os.environ.get("FLYBALL_WORKSPACE", "workspace")),
            metavar="DIR",
            help="folder of the fleet's store, inbox and reports (default: %(default)s, or $FLYBALL_WORKSPACE)",
        )
        p.add_argument("--json", action="store_true", help="one JSON document on stdout, everything else on stderr")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and lets no exception out."""
    argv = list(sys.argv[1:] if argv is None else argv)
    out = Output("--json" in argv)
    try:
        verb = argv[0] if argv and not argv[0].startswith("-") else None
        if verb is not None and verb not in VERBS:
            raise Missing.named("verb", verb, VERBS, run_next="flyball --help")
        args = _parser(verb).parse_args(argv)
        return int(importlib.import_module(f"flyball.apps.cli.{args.verb}").run(args, out))
    except SystemExit as stop:  # --help and --version
        return int(stop.code or 0)
    except FlyballError as err:
        return _refuse(out, err.line(), err.exit_code, vars(err))
    except KeyboardInterrupt:
        return _refuse(out, "interrupted; the same command goes on from here", 130, {})
    except BrokenPipeError:  # the reader of our output left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as err:
        where = f"{err.filename}: " if err.filename else ""
        return _refuse(out, f"{where}{err.strerror or err}; details: {_traceback()}", 2, {"where": where})
    except Exception as err:
        if isinstance(err, ModuleNotFoundError) and not (err.name or "flyball").startswith("flyball"):
            return _refuse(out, f"{err.name} is not installed here; try: pip install 'flyball[demo]'", 2, {})
        text = f"unexpected {type(err).__name__}: {err}; a defect in Flyball, details: {_traceback()}"
        return _refuse(out, text, 70, {})


def _refuse(out: Output, line: str, code: int, facts: dict[str, Any]) -> int:
    one = " ".join(line.split())
    out.note(one if one.startswith("flyball") else f"flyball: {one}")
    if out.as_json:
        out.result({"error": {"line": one, "exit_code": code, **{k: v for k, v in facts.items() if v}}})
    return code


def _traceback() -> str:
    """Write the current exception's traceback to a file; returns its path."""
    fd, path = tempfile.mkstemp(prefix="flyball-error-", suffix=".txt")
    with os.fdopen(fd, "w") as f:
        traceback.print_exc(file=f)
    return path


if __name__ == "__main__":
    sys.exit(main())
