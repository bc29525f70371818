"""An app with a loop of its own that takes part in a federation while its device has time."""
