"""The messages of inference.proto, made from its description in inference.binpb.

The Python files that protoc can write work with few versions of protobuf. The description works with every version.
The messages have a descriptor pool of their own, because Triton's client has messages of the same names, and a process
may use both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError

from serving.errors import InputError

SERVICE = "inference.GRPCInferenceService"


def _pool() -> Any:
    pool = DescriptorPool()
    content = Path(__file__).with_name("inference.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()
_METHODS = POOL.FindServiceByName(SERVICE).methods
REQUESTS: dict[str, Any] = {each.name: message_factory.GetMessageClass(each.input_type) for each in _METHODS}
"""The class of the request of each method, by the method's name."""
RESPONSES: dict[str, Any] = {each.name: message_factory.GetMessageClass(each.output_type) for each in _METHODS}


def parsed(kind: Any, content: bytes) -> Any:
    """Return a message of the class ``kind``.

    Raises:
        InputError: ``content`` is not a message of its class.
    """
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise InputError(f"the message is not a {kind.DESCRIPTOR.name}: {error}") from error
