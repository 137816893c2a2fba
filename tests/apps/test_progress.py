"""Progress goes to stderr: lines for logs, a display on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

from flyball.apps.cli.progress import LogProgress

CODE = """
from flyball.apps.cli.progress import progress
with progress() as p:
    p.stage("calibrate [robot-01]", 3)
    p.advance(); p.advance(2); p.at(3, 3)
    p.note("friction in [0.2, 0.6] and [red]")
print("answer")
"""


def test_log_lines_carry_the_elapsed_time() -> None:
    stream, now = io.StringIO(), [10.0]
    p = LogProgress(stream, clock=lambda: now[0])
    with p:
        p.stage("ingest")
        now[0] = 12.5
        p.advance()
        p.note("done")
    assert stream.getvalue() == "[    0.0 s] ingest\n[    2.5 s] done\n"


def test_a_terminal_gets_a_display_and_stdout_only_the_answer() -> None:
    leader, follower = pty.openpty()
    done = subprocess.run([sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=follower, text=True, check=False)
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # the far side is closed
        pass
    os.close(leader)
    assert (done.returncode, done.stdout) == (0, "answer\n")
    assert b"friction in [0.2, 0.6] and [red]" in shown
    assert b"calibrate [robot-01]" in shown
