"""A service that has clients, and the clusters that the analytics platform computes for them."""
