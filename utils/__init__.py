"""The parts that the scripts share; docs/architecture.md draws how they depend on each other."""
