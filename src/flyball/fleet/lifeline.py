"""A child process that ends when its parent does, however the parent ended."""

from __future__ import annotations

import os
import threading
import time


def end_with_parent(parent: int, every_s: float = 0.2) -> None:
    """End this process soon after ``parent`` is no longer its parent (0: never).

    Everything durable is safe against a kill, so ending at once loses nothing.
    """
    if not parent:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_s)
        os._exit(0)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()
