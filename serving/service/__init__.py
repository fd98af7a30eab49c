"""The parts that all requests share, over HTTP and over gRPC."""
