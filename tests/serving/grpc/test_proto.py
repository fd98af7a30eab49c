"""serving/grpc/inference.binpb is made from inference.proto."""

from __future__ import annotations

import os

import pytest

from tests.support import ROOT

if not os.environ.get("CI"):
    pytest.importorskip("grpc_tools", reason="needs grpcio-tools")

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

PROTO = ROOT / "serving" / "grpc"


def test_description_of_the_messages_is_made_from_the_proto(tmp_path):
    made = tmp_path / "inference.binpb"
    assert protoc.main(["protoc", f"-I{PROTO}", f"--descriptor_set_out={made}", "inference.proto"]) == 0
    kept, new = (
        descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()) for path in (PROTO / "inference.binpb", made)
    )
    assert kept == new, "run the command in inference.proto"
