"""Parses the models' answers. Model output is untrusted: `parsing.Reader` never raises."""
