"""A torch module as the federation sees it: what of it travels, and as what.

Modules of any kind come in; a `fedaq.codec.model.ModelSpec` and one flat float32 array come out. No
training, no data, no sockets.
"""
