"""Who decides how many bits each transfer gets.

A scheme plans the downlink of a round from the weights and grants each client its
uplink bits from the ranges the client reports. A grant depends only on the plan and
on that client's own report, so no client waits for another and the order of arrival
changes nothing.

A file for each scheme. `spending` has what those with a budget share, `optimizer` which bits are
worth a joule, `code_lengths` how long codes will be, `spreads` what clients reported, as arrays.
Nothing here sends or keeps anything.
"""

from fedaq_server.schemes.scheme import ClientState, Grant, Outcome, Plan, RoundState, Scheme

# What a scheme of one's own needs (docs/reference/schemes.md).
__all__ = ["ClientState", "Grant", "Outcome", "Plan", "RoundState", "Scheme"]
