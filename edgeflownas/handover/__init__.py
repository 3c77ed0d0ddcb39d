"""From the ranking to one subnet: extract it, predict with it, export it."""
