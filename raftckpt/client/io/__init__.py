"""Engines: a loop, and a thread with its sockets. Each drives any peer."""
