"""Networks of one bit: kernels in C (`c/`), the library they are built into, and what it computes."""
