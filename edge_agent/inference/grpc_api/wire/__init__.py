"""Messages of the gRPC service, generated: see scripts/grpc_messages.py."""
