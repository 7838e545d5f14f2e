"""Cameras and streams: read as they come, over all their connections."""
