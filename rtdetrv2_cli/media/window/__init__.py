"""The window of `--show`."""
