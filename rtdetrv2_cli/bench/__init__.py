"""What `rtdetrv2 bench` measures."""
