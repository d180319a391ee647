"""Judges measured: how often verifiers agree with people's grades, and what fools them."""
