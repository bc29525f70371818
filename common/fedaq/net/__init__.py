"""What both ends of a connection must agree on besides the messages: gRPC options, TLS files."""
