"""What needs a browser; its own command is ``.ci/browser``."""
