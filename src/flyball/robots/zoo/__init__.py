"""Robots of our own, from primitive geometry."""
