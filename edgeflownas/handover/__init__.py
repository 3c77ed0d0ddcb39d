"""The hand-over of one subnet: extract it, predict with it, export it."""
