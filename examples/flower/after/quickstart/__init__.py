"""A Flower app: a small CNN learns from images that ten nodes share out."""
