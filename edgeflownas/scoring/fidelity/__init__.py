"""`edgeflownas fidelity`: compares a supernet's ranking with stand-alone training. Protocol: docs/fidelity.md."""
