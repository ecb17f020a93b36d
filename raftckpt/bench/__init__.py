"""Load generator: puts a measured load on a cluster and tells what came of it."""
