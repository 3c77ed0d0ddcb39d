"""The report on a run and the comparison of runs, made only from the files of run folders, without TensorFlow."""
