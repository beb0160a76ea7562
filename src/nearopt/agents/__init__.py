"""Agents that learn near-optimal policies from experience: the same backup, sampled."""
