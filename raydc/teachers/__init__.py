"""Teachers: networks that label and score images."""
