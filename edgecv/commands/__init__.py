"""The commands of `edgecv`, a file for each, named by its word. Each registers its own."""
