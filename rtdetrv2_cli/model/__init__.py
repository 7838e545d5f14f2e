"""The RT-DETRv2 network and its checkpoints; importing this package imports no torch.

It knows no video, no drawing and no command line.
"""
