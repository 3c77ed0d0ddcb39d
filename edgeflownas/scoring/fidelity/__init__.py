"""`edgeflownas fidelity`: does a supernet's ranking agree with stand-alone training? Design, section 17."""
