"""The API guide for customers' developers, generated from the gateway's configuration, its code, and tested examples."""
