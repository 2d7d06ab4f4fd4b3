"""Models trained on the labelled set itself, to be asked about items that they did not see."""
