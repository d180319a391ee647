"""Drives a run from its first problem to its last label: with all roles in this process, or on
services.
"""
