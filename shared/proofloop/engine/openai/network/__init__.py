"""Addresses, proxies and sockets of connections to OpenAI-compatible servers."""
