"""Serves models by one decoder with continuous batching, in this process (`engine`) or in Triton
(`triton`).
"""
