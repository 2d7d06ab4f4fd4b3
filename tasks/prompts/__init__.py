"""From a sample and a pack to a request, and from the answer's text to a prediction."""
