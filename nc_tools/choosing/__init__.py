"""Choose a head and loss for fixed features: run the arms, confirm the best one on the test set, give its model."""
