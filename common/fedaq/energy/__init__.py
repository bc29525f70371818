"""What a payload bit costs in joules: the radio presets, Shannon's rate, fading.

Who spends how much is decided by the server's schemes.
"""
