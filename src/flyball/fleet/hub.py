"""The hub: the one process that robots talk to.

In: logs, statuses, incidents from agents over HTTP. Out: the logs in the workspace's inbox, acknowledged only when they
are durable; each robot's order; the signed repository as static files. Listens on 127.0.0.1 only.

    PUT  /logs/ROBOT/SHA256   a log, hash checked        201 new, 200 known
    GET  /orders/ROBOT        the robot's order          200, 404 when it never had one
    POST /status/ROBOT        progress and incidents     200
    GET  /tuf/metadata/NAME, /tuf/targets/RELEASE/NAME
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from flyball.base import FlyballError, InputError, NotPossible, digest_of
from flyball.base.durable import (
    Ledger,
    disk_errors,
    make_folder,
    move_durably,
    only_holder,
    read_json,
    write_json,
)
from flyball.base.workspace import Workspace
from flyball.fleet.lifeline import end_with_parent
from flyball.fleet.orders import order_file, status_file
from flyball.releases.release import NAME
from flyball.releases.signing import Repository

HOST = "127.0.0.1"
MAX_LOG = 512 << 20
MAX_STATUS = 8 << 20
MAX_CONNECTIONS = 256
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SERVED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,140}")  # sha256 and a name


class Hub:
    """What the hub does, without the network.

    Args:
      workspace: the workspace's folder.
      clock_ns: wall clock [ns].
    """

    def __init__(self, workspace: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.workspace, self.clock_ns = workspace, clock_ns
        self.inbox = make_folder(workspace / "inbox")
        self.incoming = make_folder(workspace / "fleet" / "incoming")  # beside the inbox: ingest never sees a half log
        with disk_errors(self.incoming):
            for left in self.incoming.iterdir():
                left.unlink()
        self._ledger = Ledger(workspace / "fleet" / "acknowledged.jsonl")
        self._known = {row["sha256"] for row in self._ledger.rows}
        self._lock = threading.Lock()
        self._count = itertools.count()

    def knows(self, digest: str) -> bool:
        """Whether that log was acknowledged before; so it stays after ingest has taken it out of the inbox."""
        return digest in self._known

    def receive(self, robot: str, digest: str, read: Callable[[int], bytes], length: int) -> bool:
        """Take a log; durable when it returns. Returns whether it was new.

        Args:
          robot: sender.
          digest: sha256 of the log.
          read: reads up to that many bytes.
          length: size of the log [bytes].

        Raises:
          InputError: fewer bytes came, or others than the digest says. Nothing is kept then.
          NotPossible: the disk is full or fails.
        """
        temporary = self.incoming / f"{digest}.{next(self._count)}.part"
        try:
            hasher = hashlib.sha256()
            left = length
            with disk_errors(temporary), open(temporary, "wb") as f:
                while left:
                    data = read(min(left, 1 << 20))
                    if not data:
                        raise InputError(f"{left} of {length} bytes did not come", where=digest[:12])
                    hasher.update(data)
                    f.write(data)
                    left -= len(data)
                f.flush()
                os.fsync(f.fileno())
            if hasher.hexdigest() != digest:
                raise InputError("the bytes do not have this sha256", where=digest[:12])
            with self._lock:
                if self.knows(digest):
                    return False
                move_durably(temporary, self.inbox / f"{robot}.{digest}.mcap")
                self._ledger.append({"robot": robot, "sha256": digest, "bytes": length, "t_ns": self.clock_ns()})
                self._known.add(digest)
            return True
        finally:
            with disk_errors(temporary):
                temporary.unlink(missing_ok=True)

    def order(self, robot: str) -> dict[str, Any] | None:
        """The robot's order."""
        data: dict[str, Any] | None = read_json(order_file(self.workspace, robot))
        return data

    def status(self, robot: str, status: dict[str, Any]) -> list[str]:
        """Take a status and its incidents; durable when it returns.

        Returns:
          ids of the incidents: the agent may forget them.
        """
        now = self.clock_ns()
        taken = []
        incidents = status.pop("incidents", [])
        if not isinstance(incidents, list):
            raise InputError("incidents are a list", where=robot)
        for incident in incidents:
            id_ = str(incident.get("id", "")) if isinstance(incident, dict) else ""
            if not _DIGEST.fullmatch(id_) or id_ != digest_of({k: v for k, v in incident.items() if k != "id"}):
                raise InputError("an incident whose id is not its digest", where=robot)
            path = self.workspace / "fleet" / "incidents" / robot / f"{id_}.json"
            if not path.exists():
                write_json(path, {**incident, "robot": robot, "received_ns": now})
            taken.append(id_)
        write_json(status_file(self.workspace, robot), {**status, "robot": robot, "received_ns": now})
        return taken


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # a peer that goes silent does not hold a thread for ever
    server: HubServer

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if len(parts) == 2 and parts[0] == "orders" and NAME.fullmatch(parts[1]):
            order = self.server.hub.order(parts[1])
            self._answer(200 if order is not None else 404, order if order is not None else {"error": "no order yet"})
        elif len(parts) in (3, 4) and parts[0] == "tuf" and all(_SERVED.fullmatch(p) for p in parts[1:]):
            self._file(self.server.hub.workspace.joinpath("tuf", "repository", *parts[1:]))
        else:
            self._answer(404, {"error": "no such address"})

    def do_PUT(self) -> None:
        parts = self.path.strip("/").split("/")
        length = self._length(MAX_LOG)
        if length is None:
            return
        if len(parts) != 3 or parts[0] != "logs" or not NAME.fullmatch(parts[1]) or not _DIGEST.fullmatch(parts[2]):
            return self._refuse(404, "no such address")
        try:
            new = self.server.hub.receive(parts[1], parts[2], self.rfile.read, length)
        except InputError as err:
            return self._refuse(400, err.line())
        self._answer(201 if new else 200, {"sha256": parts[2], "new": new})

    def do_POST(self) -> None:
        parts = self.path.strip("/").split("/")
        length = self._length(MAX_STATUS)
        if length is None:
            return
        if len(parts) != 2 or parts[0] != "status" or not NAME.fullmatch(parts[1]):
            return self._refuse(404, "no such address")
        try:
            status = json.loads(self.rfile.read(length))
            if not isinstance(status, dict):
                raise InputError("a status is a JSON object")
            taken = self.server.hub.status(parts[1], status)
        except (ValueError, FlyballError) as err:
            return self._refuse(400, str(err))
        self._answer(200, {"incidents": taken})

    def _length(self, limit: int) -> int | None:
        text = self.headers.get("Content-Length", "")
        if not text.isdecimal():
            self._refuse(411, "Content-Length is needed")
        elif int(text) > limit:
            self._refuse(413, f"at most {limit} bytes")
        else:
            return int(text)
        return None

    def _refuse(self, code: int, why: str) -> None:
        self.close_connection = True  # the body may not have been read
        self._answer(code, {"error": why})

    def _file(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return self._answer(404, {"error": "no such file"})
        self._send(200, data, "application/octet-stream")

    def _answer(self, code: int, document: Any) -> None:
        self._send(code, json.dumps(document).encode(), "application/json")

    def _send(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    """The hub on a socket of this machine.

    Args:
      hub: what it does.
      port: 0 lets the system choose.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, hub: Hub, port: int = 0) -> None:
        self.hub = hub
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__((HOST, port), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)  # the agent comes back
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            print(f"flyball hub: {type(error).__name__}: {error}", file=sys.stderr, flush=True)


def hub_url(workspace: Path) -> str:
    """Where the workspace's hub listens (or listened last), "" when there never was one."""
    return str(read_json(workspace / "hub.json", {}).get("url", ""))


def main(argv: list[str] | None = None) -> int:
    """Run a hub until it is told to end."""
    parser = argparse.ArgumentParser(prog="flyball hub", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0, help="0 (default): the system chooses; see hub.json")
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    args = parser.parse_args(argv)
    end_with_parent(args.parent)
    try:
        serve(Workspace(args.workspace).path, args.port)
    except FlyballError as err:
        print(f"flyball hub: {err.line()}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        pass
    return 0


def serve(workspace: Path, port: int = 0) -> None:
    """Serve a workspace for ever; one hub per workspace.

    Raises:
      Conflict: another hub serves it.
      NotPossible: the port is taken.
    """
    with only_holder(workspace / "fleet" / "hub.lock", wait_s=10):
        repository = Repository(workspace)
        repository.renew()
        try:
            server = HubServer(Hub(workspace), port)
        except OSError as err:
            raise NotPossible(f"cannot listen on {HOST}:{port} ({err.strerror})", run_next="--port 0") from err
        write_json(workspace / "hub.json", {"url": server.url, "pid": os.getpid()})

        def renew() -> None:
            while True:
                time.sleep(3600)
                repository.renew()

        threading.Thread(target=renew, daemon=True, name="renew").start()
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    sys.exit(main())
