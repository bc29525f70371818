"""Who a client is: its part of the data, and its name."""

import socket

from fedaq.errors import UserError
from fedaq.net.client_names import RULE, is_name
from fedaq.settings import ClientSettings
from fedaq.tasks.partition import WHOLE, Partition, parse_partition
from fedaq_client.transport.access import Access


def part_of(own: ClientSettings) -> Partition:
    """Return the part of the data that is this client's.

    Raises
    ------
    UserError
        If it is none.
    """
    return WHOLE if own.partition is None else parse_partition(own.partition)


def name_of(own: ClientSettings, part: Partition, access: Access) -> str:
    """Return the name under which this client joins.

    Raises
    ------
    UserError
        If its certificate or token is for another one, or nobody can be called that.
    """
    fallback = socket.gethostname() if part == WHOLE else f"client-{part.index + 1}"
    name = own.name or access.name or fallback
    if access.name not in ("", name):
        raise UserError(
            f"--name {name}: the certificate or token is for {access.name}; leave --name out"
        )
    if not is_name(name):
        raise UserError(f"{name!r}: {RULE}; choose another with --name")
    return name
