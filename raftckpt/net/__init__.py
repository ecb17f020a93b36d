"""Sockets that listen, who is let in, and what a certificate says of its holder."""
