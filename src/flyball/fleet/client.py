"""The robot's side of the hub's addresses.

In: the hub's URL. Out: orders, acknowledgements, files; ``Unreachable`` for whatever a later attempt may cure.
Proxies are never used: the hub is on this machine.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface

from flyball.base import InputError, NotPossible

MAX_ANSWER = 1 << 20


class Unreachable(NotPossible):
    """The hub does not answer, or not as a hub does. Try later."""


class HubClient:
    """Talks to one hub.

    Args:
      url: ``http://127.0.0.1:PORT``.
      timeout_s: longest silence of the hub [s].
    """

    def __init__(self, url: str, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise InputError(f"hub {url!r}", allowed="http://127.0.0.1:PORT")
        self.url, self.timeout_s = url.rstrip("/"), timeout_s
        self._host, self._port = parts.hostname, parts.port

    def order(self, robot: str) -> Any | None:
        """The robot's order as plain data, None when it has none."""
        code, data = self._ask("GET", f"/orders/{robot}")
        if code == 404:
            return None
        return self._json(code, data)

    def send_log(self, robot: str, digest: str, log: Path) -> None:
        """Upload a log; when this returns, it is durable at the hub.

        Raises:
          Unreachable: it is not, as far as one can tell.
        """
        with open(log, "rb") as f:
            code, data = self._ask("PUT", f"/logs/{robot}/{digest}", f, log.stat().st_size)
        if self._json(code, data).get("sha256") != digest:
            raise Unreachable("the hub acknowledged another log", where=self.url)

    def send_status(self, robot: str, status: Mapping[str, Any]) -> list[str]:
        """Report; returns the ids of the incidents that are now durable at the hub."""
        body = json.dumps(status).encode()
        code, data = self._ask("POST", f"/status/{robot}", body, len(body))
        return [str(i) for i in self._json(code, data).get("incidents", [])]

    def _json(self, code: int, data: bytes) -> Any:
        try:
            document = json.loads(data)
        except ValueError as err:
            raise Unreachable(f"not a hub's answer ({code})", where=self.url) from err
        if code not in (200, 201):
            raise Unreachable(f"answer {code}: {document.get('error', '')}", where=self.url)
        return document

    def _ask(self, method: str, path: str, body: Any = None, length: int = 0) -> tuple[int, bytes]:
        with self._connection() as connection:
            headers = {"Content-Length": str(length)} if body is not None else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(MAX_ANSWER)

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self.timeout_s)
        try:
            with closing(connection):
                yield connection
        except (OSError, http.client.HTTPException) as err:
            raise Unreachable(f"no answer from the hub ({err or type(err).__name__})", where=self.url) from err


class HubFetcher(FetcherInterface):
    """How the TUF client reads from a hub."""

    def __init__(self, timeout_s: float = 10.0) -> None:
        self.timeout_s = timeout_s

    def _fetch(self, url: str) -> Iterator[bytes]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self.timeout_s)
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        if answer.status != 200:
            connection.close()
            raise DownloadHTTPError(f"{url}: {answer.status}", answer.status)

        def blocks() -> Iterator[bytes]:
            with closing(connection):
                while data := answer.read(1 << 16):
                    yield data

        return blocks()
