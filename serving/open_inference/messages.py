"""The parts of messages that HTTP and gRPC share."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from serving.contract import Floats

DATATYPES = {"uint8": "UINT8", "float32": "FP32"}
"""The protocol's names of the data types that a manifest can name."""

# Characters of a request's id, which comes back in the response. Without a limit, a few kilobytes of gzip would make a
# response of megabytes, and compressing it would keep the event loop busy.
MAX_ID = 1024


class OutputParameters(msgspec.Struct):
    """The parameters of an output that this service knows."""

    binary_data: bool | None = None
    classification: int | None = None


class RequestOutput(msgspec.Struct):
    """An output that the client requests."""

    name: str
    parameters: OutputParameters | None = None


class OutputTensor(NamedTuple):
    """An output of a response."""

    asked: RequestOutput
    datatype: str
    shape: list[int]
    values: Floats | list[str]
    """Texts if the data type is BYTES."""

    def to_bytes(self) -> bytes:
        """Return the values in binary form, row after row."""
        if isinstance(self.values, list):
            return b"".join(map(_with_length, self.values))
        return self.values.astype("<f4", copy=False).tobytes()


def _with_length(text: str) -> bytes:
    """Return an element of a BYTES tensor: its length as four bytes, little-endian, then the text."""
    content = text.encode()
    return len(content).to_bytes(4, "little") + content


class ServerMetadata(msgspec.Struct):
    """Name and version of the server, and the extensions of the protocol that it supports."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(msgspec.Struct):
    """An input or output of a model. An axis of -1 has any length."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """Loaded versions, inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(msgspec.Struct):
    """A model version in the repository."""

    name: str
    version: str
    state: str
    reason: str
