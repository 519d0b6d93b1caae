"""The composition root: store, workflow, gRPC server and command line."""
