"""The V2 protocol over gRPC. Needs the extra ``grpc``, and is imported only if it is turned on."""
