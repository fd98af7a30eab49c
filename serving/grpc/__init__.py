"""The service over gRPC: the Open Inference Protocol, health and reflection. Loaded only with --grpc-port."""

import os

# gRPC reads these when it is imported. It would write lines of its own to standard error when the service starts the
# process that decodes pictures, and clients could fill the log with faults of their connections.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
