"""A child process that ends when its parent does, however the parent ended."""

from __future__ import annotations

import os
import signal
import threading
import time


def end_with_parent(parent: int, every_s: float = 0.2) -> None:
    """End this process soon after ``parent`` is no longer its parent (0: never).

    It is asked to (SIGTERM: a robot is stopped first), and a second later ended. What is durable is safe either way.
    """
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()
