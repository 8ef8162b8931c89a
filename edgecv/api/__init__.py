"""What `edgecv` promises to Python programs, a file for each function: `edgecv.export` is `export`
in export.py. The commands of the same names parse options and call the same files.

Here is nothing to import from: programs write `import edgecv`.
"""
