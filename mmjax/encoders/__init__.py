"""Encoders by the name that a config gives."""

ENCODERS = {}
