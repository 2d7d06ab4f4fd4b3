"""What a labelling task is: label set, glosses, options, columns."""
