"""The same search with this project and with its peers. See benchmarks/README.md."""
