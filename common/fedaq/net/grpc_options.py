"""What both ends of a stream agree on besides the messages themselves."""

SERVICE = "fedaq.v1.Federation"
PATH = f"/{SERVICE}/Participate"
DESCRIBE_PATH = f"/{SERVICE}/Describe"

# Chunks are at most 2 MiB; a header of 100,000 tensors fits too.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024

# HTTP/2 pings keep a quiet stream open through NAT. The server must permit what
# the client sends, or it ends the connection with "too many pings".
KEEPALIVE_MS = 30_000

# How long a server keeps a connection that has not spoken TLS and HTTP/2, and one without a call. A
# client calls as soon as it is connected.
HANDSHAKE_MS, IDLE_MS = 20_000, 60_000

LOOKAHEAD_BYTES = 256 * 1024

_COMMON: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    # What a peer may send ahead of its reader. gRPC would let it grow with the speed of the link,
    # and so the server's memory with the number of clients.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
    # gRPC's 16 KiB would cut each chunk into many, each with its own work.
    ("grpc.http2.max_frame_size", LOOKAHEAD_BYTES),
]
# Else the variables http_proxy, https_proxy and grpc_proxy would choose the way.
DIRECT = ("grpc.enable_http_proxy", 0)
PROXY = "grpc.http_proxy"

CLIENT_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]
SERVER_OPTIONS: list[tuple[str, int]] = [
    *_COMMON,
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 3),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
    ("grpc.max_connection_idle_ms", IDLE_MS),
]
