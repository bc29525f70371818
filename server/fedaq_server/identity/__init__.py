"""Who may join: names, certificates, tokens, and how a caller proves who it is.

How a client behaves once it is in is another matter: that is `conduct`.
"""
