"""The guide for customers' developers: made of the running gateway's configuration, its code, and the examples that tests run."""
