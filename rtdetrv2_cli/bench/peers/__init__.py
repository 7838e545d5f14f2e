"""This package's detection beside other packages', each in a process of its own.

Each way to detect is a module or function that imports its package late; `worker` runs one of them,
and `measure` lets them take turns.
"""
