"""Arrays computed by the original PyTorch code, and what compares with them.

`python -m tests.golden FILE ...` checks any file of the format; the tests run
the same code over this folder.
"""
