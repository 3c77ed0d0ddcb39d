"""The report on a run, made only from the files of its folder, without TensorFlow: verdict, plots, document."""
