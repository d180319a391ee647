"""The estimate of a run before it starts: calls, tokens, time, money, pods."""
