"""The service over gRPC: the Open Inference Protocol, health and reflection. Loaded only with --grpc-port."""
