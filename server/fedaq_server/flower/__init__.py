"""The server's side of `fedaq.flower`: a strategy around the user's own.

What nodes hold and how they get there, what may be sent, and the strategy. No gRPC: Flower sends.
"""
