"""A Flower app that sends coded differences both ways, by two changed lines.

    app = ClientApp(mods=[coded()])                       # of the nodes
    strategy = Coded(FedAvg(), budget_bytes=20_000_000)   # of the server

What a node needs lies here; the strategy comes with the server.
"""

from fedaq.flower.sides import __getattr__ as __getattr__
