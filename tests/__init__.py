"""Proofs, cheapest first."""
