"""The step cache: work that was done once is not done again.

In: a name, a version, inputs as plain data, and a function that makes the result. Out: the result's ``Artifact``. The
key is the digest of the first three; a stored result is returned without calling the function, in any process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flyball.base.artifact import Artifact, digest_of
from flyball.base.errors import InputError
from flyball.base.store import Store, locked

_DIGEST = re.compile(r"[0-9a-f]{64}")


def step(
    store: Store,
    name: str,
    version: str | int,
    inputs: Any,
    make: Callable[[], Any],
    *,
    kind: str = "",
    labels: Mapping[str, Any] | None = None,
    now_ns: int | None = None,
) -> Artifact:
    """The result of ``make()``, computed at most once per (name, version, inputs).

    Processes that ask for the same key at the same time wait for the one that computes. A process killed in the
    middle leaves nothing behind; the next one computes again. Digests of artifacts among the inputs become parents.

    Args:
      store: where results live.
      name: code path of the step, e.g. ``flyball.calibration.fit``.
      version: changed by hand whenever the step would answer differently.
      inputs: plain data, arrays or dataclasses that determine the result, seeds and settings included.
      make: returns bytes, or JSON-able data (stored as canonical JSON; see ``json_of``).
      kind: artifact kind of the result; ``name`` when empty.
      labels: labels of the result.
      now_ns: wall clock [ns]; the store's clock when None.

    Returns:
      The artifact; its content is ``store.get(artifact.digest)``.
    """
    key = digest_of({"step": name, "version": str(version), "inputs": inputs})
    found = _stored(store, key)
    if found is not None:
        return found
    with locked(store.blobs / "tmp" / f"step-{key}.lock"):
        found = _stored(store, key)
        if found is not None:
            return found
        made = make()
        blob = made if isinstance(made, bytes) else _encode(made, name)
        (digest,) = store.keep(blob)
        with store.transaction() as db:
            artifact = store.register(
                kind or name,
                digest,
                parents=[d for d in dict.fromkeys(_digests(inputs)) if store.has(d)],
                producer=f"{name}@{version}",
                labels=labels,
                now_ns=now_ns,
            )
            db.execute("INSERT OR REPLACE INTO steps VALUES (?, ?, ?)", (key, artifact.digest, artifact.kind))
        return artifact


def json_of(store: Store, artifact: Artifact) -> Any:
    """The data of an artifact that was stored as JSON.

    Raises:
      InputError: it is not JSON.
    """
    try:
        return json.loads(store.get(artifact.digest))
    except ValueError as err:
        raise InputError(f"the {artifact.kind} is not JSON", where=artifact.digest[:12]) from err


def _stored(store: Store, key: str) -> Artifact | None:
    rows = store.read("SELECT digest, kind FROM steps WHERE key = ?", (key,))
    if rows and store.path(rows[0][0]).exists():  # a blob somebody removed is made again
        return store.artifact(*rows[0])
    return None


def _encode(data: Any, name: str) -> bytes:
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()
    except (TypeError, ValueError) as err:
        raise InputError(f"the step's result is neither bytes nor JSON ({err})", where=name) from err


def _digests(x: Any) -> Iterator[str]:
    if isinstance(x, str):
        if _DIGEST.fullmatch(x):
            yield x
    elif isinstance(x, Artifact):
        yield x.digest
    elif isinstance(x, Mapping):
        yield from _digests(list(x.values()))
    elif isinstance(x, Iterable) and not isinstance(x, (bytes, bytearray)) and not hasattr(x, "dtype"):
        for v in x:
            yield from _digests(v)
