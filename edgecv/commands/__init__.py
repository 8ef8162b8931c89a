"""The commands of `edgecv`, by what they are about. Each module registers its own."""
