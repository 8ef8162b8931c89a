"""Measuring: jobs that processes of their own do, on the engine that is measured."""
