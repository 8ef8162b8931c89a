"""Bundles beside each other: interleaved rounds, ratios with intervals, profiles, the gate."""
