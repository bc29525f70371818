"""One round, from its plan to the ledger: what goes down, what comes up, and the new model.

How messages travel is in `transport`, how many bits they get in `schemes`, what is kept of a round
in `records`.
"""
