"""What a run will take before it starts: calls, tokens, time, money, pods."""
