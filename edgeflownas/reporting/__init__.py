"""The report on a run, made from the files of its folder alone: reader, verdict, plots, document. No
TensorFlow."""
