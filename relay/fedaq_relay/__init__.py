"""A server to its own clients and one client to another server: both sides in one process."""
