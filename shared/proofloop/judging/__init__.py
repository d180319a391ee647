"""Measures judges: how often verifiers agree with people's grades, and which attacks deceive
them.
"""
