"""The Open Inference Protocol v2 without its two forms: serving/api has its form over HTTP, serving/grpc over gRPC."""
