"""gRPC: services, interceptor, status codes, ports."""
