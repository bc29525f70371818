"""What every test shares."""

from hypothesis import settings

# The first call of a compiled loop takes as long as its compilation.
settings.register_profile("fedaq", deadline=None)
settings.load_profile("fedaq")
