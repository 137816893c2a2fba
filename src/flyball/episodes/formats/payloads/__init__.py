"""Payloads: what the bytes of one message mean, for each way robots describe them.

In: the definition that a log embeds, and the payloads of one topic. Out: one array (or list of texts) per field over
all messages. One file per encoding; each registers a function ``(schema name, schema data) -> Decoder`` under
``message encoding/schema encoding``, the names of the MCAP registry (mcap.dev/spec/registry). One outside the tree
uses the entry-point group ``flyball.payloads``. Definitions and payloads come from anywhere: decoders bound sizes,
counts and depth, and raise nothing but ``Damaged`` and ``Unsupported``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from flyball.base import Damaged, FlyballError, Missing, PluginTable, Unsupported

payloads = PluginTable(
    "payload decoder",
    "flyball.payloads",
    {
        "cdr/ros2msg": "flyball.episodes.formats.payloads.ros:ros2msg",
        "cdr/ros2idl": "flyball.episodes.formats.payloads.ros:ros2idl",
        "ros1/ros1msg": "flyball.episodes.formats.payloads.ros:ros1msg",
        "protobuf/protobuf": "flyball.episodes.formats.payloads.protobuf:protobuf",
        "json/jsonschema": "flyball.episodes.formats.payloads.json:jsonschema",
        "json/": "flyball.episodes.formats.payloads.json:schemaless",
        "flatbuffer/flatbuffer": "flyball.episodes.formats.payloads.flatbuffer:flatbuffer",
    },
)

Path: TypeAlias = tuple[str, ...]
"""Field names from the outermost in; elements of an array of messages are ``name[3]``."""

MAX_DEFINITION = 4 << 20
"""Bytes of a definition; those of the largest known packages have 100 kB."""
MAX_DEPTH = 32
"""Messages within messages."""
MAX_FIELDS = 4096
"""Fields of one message, with those of the messages within."""
MAX_ELEMENTS = 256
"""Messages in one array within a message."""


@dataclass(frozen=True)
class Column:
    """One field over all messages.

    Attributes:
      path: where in the message.
      unit: SI units where the type says them.
      values: shape (n, *shape), or a list of n strings.
    """

    path: Path
    unit: str
    values: NDArray[Any] | list[str]


class Decoder(Protocol):
    """Decodes the messages of one type.

    Attributes:
      name: the type's name as its language writes it: ``sensor_msgs/JointState`` (without ``msg/``),
        ``foxglove.CompressedVideo``; "" when payloads describe themselves.
      fields: the names of the outermost fields; empty when unknown.

    Poses, twists and the like are one column, quaternions wxyz; time stamps are two, ``(..., "sec")`` and
    ``(..., "nanosec")``, whatever the encoding calls them.
    """

    name: str
    fields: tuple[str, ...]

    def decode(self, payloads: Sequence[bytes]) -> tuple[list[Column], list[str]]:
        """All messages, as columns.

        Args:
          payloads: one per message, at least one.

        Returns:
          (columns of the fields that have one shape throughout, dotted names of the fields that have not).

        Raises:
          Damaged: a payload does not fit the definition.
          Unsupported: it does, and is beyond what is decoded.
        """

    def row(self, payload: bytes) -> Mapping[Path, Any]:
        """One message: numbers, texts, arrays; a field of bytes is a ``memoryview`` and is not copied.

        Raises:
          Damaged: the payload does not fit the definition.
          Unsupported: it does, and is beyond what is decoded.
        """


def decoder(message_encoding: str, schema_name: str, schema_encoding: str, schema_data: bytes) -> Decoder:
    """The decoder for a topic.

    Args:
      message_encoding: of the payloads: ``cdr``, ``ros1``, ``protobuf``, ``json``, ``flatbuffer``, ...
      schema_name: the message's type, e.g. ``sensor_msgs/msg/JointState``; "" without a schema.
      schema_encoding: of the definition: ``ros2msg``, ``ros2idl``, ``ros1msg``, ``protobuf``, ...; "" without one.
      schema_data: the definition.

    Raises:
      Unsupported: nothing decodes this pair.
      Damaged: the definition is none.
      NotPossible: a library is missing.
    """
    make = _maker(f"{message_encoding}/{schema_encoding}")
    if make is None:
        described = f"{message_encoding or 'unknown'}/{schema_encoding or 'no schema'}"
        raise Unsupported(f"encoding {described}", allowed=", ".join(payloads.names()))
    if len(schema_data) > MAX_DEFINITION:
        raise Unsupported(f"a definition of {len(schema_data)} bytes", where=f"definition of {schema_name}")
    try:
        return make(schema_name, schema_data)
    except FlyballError:
        raise
    except Exception as err:  # decoders are plug-ins, and their libraries raise what they like
        reason = f"{type(err).__name__}: {err}".splitlines()[0][:120]
        raise Damaged(f"cannot be read ({reason})", where=f"definition of {schema_name}") from err


@cache
def _maker(key: str) -> Callable[[str, bytes], Decoder] | None:
    try:
        return payloads.load(key)
    except Missing:
        return None
