"""Second stages of training: the backbone is frozen and only the classifier changes."""
