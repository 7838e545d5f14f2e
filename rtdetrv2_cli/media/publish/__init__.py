"""Streams sent on to media servers, with what was found drawn in."""
